"""The life of a task: its words (model), states (lifecycle), and what happens next (planning, retries …)."""
