// Parsers of DeepStream's nvinfer for the ONNX files of the export command.
//   NvDsInferParseRows: outputs (boxes, 5 + classes): centre x, centre y, width, height, objectness, class scores
//   NvDsInferParseObjectness: the same of a YOLOv7 network of one class, whose class score is not trained
//   NvDsInferParseDetections: num_dets, det_boxes (x1 y1 x2 y2), det_scores, det_classes of export --end2end
// All in pixels of the network's input; nvinfer takes them back to the frame.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

using Layers = std::vector<NvDsInferLayerInfo>;
using Objects = std::vector<NvDsInferParseObjectInfo>;

const NvDsInferLayerInfo* find(const Layers& layers, const char* name) {
    for (const auto& layer : layers)
        if (layer.layerName && std::strcmp(layer.layerName, name) == 0) return &layer;
    return nullptr;
}

void add(Objects& objects, const NvDsInferNetworkInfo& network, unsigned label, float score, float x1, float y1, float x2,
         float y2) {
    const float width = static_cast<float>(network.width), height = static_cast<float>(network.height);
    x1 = std::min(std::max(x1, 0.0f), width), x2 = std::min(std::max(x2, 0.0f), width);
    y1 = std::min(std::max(y1, 0.0f), height), y2 = std::min(std::max(y2, 0.0f), height);
    if (!(x2 > x1 && y2 > y1)) return;
    NvDsInferParseObjectInfo object{};
    object.classId = label, object.detectionConfidence = score;
    object.left = x1, object.top = y1, object.width = x2 - x1, object.height = y2 - y1;
    objects.push_back(object);
}

bool parse_rows(const Layers& layers, const NvDsInferNetworkInfo& network, const NvDsInferParseDetectionParams& params,
                Objects& objects, bool objectness) {
    const NvDsInferLayerInfo* output = find(layers, "outputs");
    const unsigned classes = params.numClassesConfigured;
    if (!output || output->dataType != FLOAT || output->inferDims.numDims != 2) return false;
    const unsigned count = output->inferDims.d[0], numbers = output->inferDims.d[1];
    if (numbers != 5 + classes) return false;
    const float* row = static_cast<const float*>(output->buffer);
    for (unsigned box = 0; box < count; ++box, row += numbers)
        for (unsigned label = 0; label < classes; ++label) {
            const float score = objectness ? row[4] : row[4] * row[5 + label];
            if (score < params.perClassPreclusterThreshold[label]) continue;
            add(objects, network, label, score, row[0] - row[2] / 2, row[1] - row[3] / 2, row[0] + row[2] / 2,
                row[1] + row[3] / 2);
        }
    return true;
}

}  // namespace

extern "C" bool NvDsInferParseRows(const Layers& layers, const NvDsInferNetworkInfo& network,
                                   const NvDsInferParseDetectionParams& params, Objects& objects) {
    return parse_rows(layers, network, params, objects, false);
}

extern "C" bool NvDsInferParseObjectness(const Layers& layers, const NvDsInferNetworkInfo& network,
                                         const NvDsInferParseDetectionParams& params, Objects& objects) {
    return parse_rows(layers, network, params, objects, true);
}

extern "C" bool NvDsInferParseDetections(const Layers& layers, const NvDsInferNetworkInfo& network,
                                         const NvDsInferParseDetectionParams& params, Objects& objects) {
    const NvDsInferLayerInfo *count = find(layers, "num_dets"), *boxes = find(layers, "det_boxes"),
                             *scores = find(layers, "det_scores"), *labels = find(layers, "det_classes");
    if (!count || !boxes || !scores || !labels || count->dataType != INT32 || labels->dataType != INT32) return false;
    const int found = std::min(*static_cast<const int32_t*>(count->buffer), static_cast<int32_t>(scores->inferDims.d[0]));
    const float* box = static_cast<const float*>(boxes->buffer);
    for (int i = 0; i < found; ++i, box += 4) {
        const int32_t label = static_cast<const int32_t*>(labels->buffer)[i];
        const float score = static_cast<const float*>(scores->buffer)[i];
        if (label < 0 || label >= static_cast<int32_t>(params.numClassesConfigured)) return false;
        if (score >= params.perClassPreclusterThreshold[label])
            add(objects, network, static_cast<unsigned>(label), score, box[0], box[1], box[2], box[3]);
    }
    return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseRows);
CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseObjectness);
CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseDetections);
