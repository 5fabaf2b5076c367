"""Networks of 1-bit convolutions in one file, and what runs it; MindSpore is not needed."""
