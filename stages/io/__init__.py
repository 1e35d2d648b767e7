"""The only place that touches files: frame store, tables, models."""
