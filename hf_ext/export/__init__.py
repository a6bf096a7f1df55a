"""Trained models as files that run without the model's code: ONNX, int8, torch.export."""
