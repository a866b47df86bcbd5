"""Which layers get quantizers, putting them in, and which quantizers share one scale; no calibration."""
