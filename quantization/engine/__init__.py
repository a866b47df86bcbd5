"""The TensorRT side: engine JSON, drawings and comparison. Imports no torch; runs on Python 3.8 (JetPack)."""
