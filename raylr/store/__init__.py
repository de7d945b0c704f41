"""What a study keeps on disk: tables of Parquet fragments, files written whole or not at all, locks, safe paths."""
