"""The wire: what producers send, how it becomes a `core.changes.Change`, and where refused events go."""
