//! Whether the application is well: checks, and the verdict over a trial.
