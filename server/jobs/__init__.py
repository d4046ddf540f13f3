"""Fine-tuning jobs: creating, running and listing them, their events and webhooks."""
