// Calls a parser on tensors of Python, for tests/handover/test_deepstream.py.
#include <cstring>

#include "parse_boxes.cpp"

extern "C" int call(const char *parser, int layers, const char **names, const int *kinds, const int *sides, void **buffers,
                    int classes, float threshold, float *result) {
    std::vector<NvDsInferLayerInfo> given;
    for (int i = 0; i < layers; ++i) {
        NvDsInferLayerInfo layer{};
        layer.dataType = static_cast<NvDsInferDataType>(kinds[i]);
        layer.layerName = names[i], layer.buffer = buffers[i];
        layer.inferDims.numDims = sides[2 * i + 1] ? 2 : 1;
        layer.inferDims.d[0] = sides[2 * i], layer.inferDims.d[1] = sides[2 * i + 1];
        given.push_back(layer);
    }
    NvDsInferParseDetectionParams params{};
    params.numClassesConfigured = classes;
    params.perClassPreclusterThreshold.assign(classes, threshold);
    std::vector<NvDsInferParseObjectInfo> objects;
    NvDsInferParseCustomFunc function = std::strcmp(parser, "NvDsInferParseRows") == 0     ? NvDsInferParseRows
                                        : std::strcmp(parser, "NvDsInferParseObjectness") == 0 ? NvDsInferParseObjectness
                                                                                           : NvDsInferParseDetections;
    if (!function(given, NvDsInferNetworkInfo{320, 192, 3}, params, objects)) return -1;
    for (const auto &object : objects) {
        const float row[] = {object.left, object.top, object.left + object.width, object.top + object.height,
                             object.detectionConfidence, static_cast<float>(object.classId)};
        std::memcpy(result, row, sizeof row), result += 6;
    }
    return static_cast<int>(objects.size());
}
