"""The folder of a deployment, and the one HTML page that shows all of it; runs where torch is missing."""
