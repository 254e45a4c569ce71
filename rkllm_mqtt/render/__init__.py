"""Chat templates: messages in, the prompt text of the model out."""
