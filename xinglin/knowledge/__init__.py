"""Knowledge: graph files read into typed facts, text linked to them, and what must not be trained on."""
