"""Fine-tuning jobs: rows become runs, runs become events, and the end of a run a model that answers."""
