// The part of DeepStream's nvdsinfer_custom_impl.h and nvdsinfer.h that parsers of boxes use, to compile them without it.
#pragma once
#include <vector>

typedef enum { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 } NvDsInferDataType;

typedef struct {
    unsigned int numDims;
    unsigned int d[8];
    unsigned int numElements;
} NvDsInferDims;

typedef struct {
    NvDsInferDataType dataType;
    NvDsInferDims inferDims;
    int bindingIndex;
    const char *layerName;
    void *buffer;
    int isInput;
} NvDsInferLayerInfo;

typedef struct {
    unsigned int width, height, channels;
} NvDsInferNetworkInfo;

typedef struct {
    unsigned int classId;
    float left, top, width, height, detectionConfidence;
} NvDsInferObjectDetectionInfo;

typedef NvDsInferObjectDetectionInfo NvDsInferParseObjectInfo;

typedef struct {
    unsigned int numClassesConfigured;
    std::vector<float> perClassPreclusterThreshold;
    std::vector<float> perClassPostclusterThreshold;
} NvDsInferParseDetectionParams;

typedef bool (*NvDsInferParseCustomFunc)(std::vector<NvDsInferLayerInfo> const &, NvDsInferNetworkInfo const &,
                                         NvDsInferParseDetectionParams const &,
                                         std::vector<NvDsInferParseObjectInfo> &);

#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(name) static const NvDsInferParseCustomFunc check_##name = name
