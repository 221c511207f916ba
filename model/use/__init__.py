"""A trained model at work: on pictures as people have them, from a checkpoint or an ONNX file."""
