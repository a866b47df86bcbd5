"""Command line: argparse parsers built from the option dataclasses, and the commands; no other room may know argparse."""
