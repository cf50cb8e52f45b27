"""Agents: plans by a model, tools in a workspace, gates that say when it is done."""
