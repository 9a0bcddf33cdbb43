"""From token states to the vectors that are stored: pooling, the model's last layers, number types."""
