"""What several models say to clients in the same words, and by which others recognise what was meant.

Errors of inner models all arrive as INTERNAL: their last words tell what they were (inner_models.py).
"""

from __future__ import annotations

# How the refusals of busy models end.
TRY_AGAIN = "try again in a moment"
# How they end what they say of an image that is not kept.
SEND_AGAIN = "send the image again"
# Where the decoder refuses an image's embeddings.
RETIRED = (
    "image_id: the embeddings of this image come from other weights than the server decodes with now"
    f" (the model was reloaded); {SEND_AGAIN}"
)
