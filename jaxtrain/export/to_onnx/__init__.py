"""Programs of JAX as graphs of ONNX: a jaxpr is walked, and a table has the form of each of its primitives."""
