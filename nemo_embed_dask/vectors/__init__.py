"""Token states to vectors: pooling, the layers behind it, and the stored number type."""
