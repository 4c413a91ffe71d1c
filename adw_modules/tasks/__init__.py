"""The life of a task: its words (model), its states (lifecycle), what happens next (planning, retries, outcome)."""
