"""How a range is chosen from what calibration counted: levels, histograms, searches, scale groups; numpy alone."""
