"""What trainers write while they run, as flat records: JSON lines, text, TensorBoard event files, W&B offline files."""
