"""Which layers cost the most accuracy: rankings, the plot, and the accuracy budget; nothing here changes how a layer is quantized."""
