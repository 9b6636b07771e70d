"""The credentials that the stand-ins accept: dummies, and Eko's public staging values."""

from typing import Final

SANDBOX_CLIENT_ID: Final = "sandbox-client-id"
SANDBOX_CLIENT_SECRET: Final = "sandbox-client-secret"  # noqa: S105 - opens nothing anywhere
SANDBOX_SHARING_KEYS: Final = {
    "clinic-a": "sandbox-sharing-key-a",
    "clinic-b": "sandbox-sharing-key-b",
}
SANDBOX_LONG_LIVED_TOKEN: Final = "sandbox-long-lived-token"  # noqa: S105 - opens nothing anywhere

# Published by Eko for its staging environment; they move no money.
SANDBOX_DEVELOPER_KEY: Final = "becbbce45f79c6f5109f848acd540567"
SANDBOX_ACCESS_KEY: Final = "d2fe1d99-6298-4af2-8cc5-d97dcf46df30"
SANDBOX_INITIATOR_ID: Final = "9962981729"
SANDBOX_USER_CODE: Final = "20810200"

# What an AePS body carries in `aadhar`, and the plaintext number that its request_hash covers.
SANDBOX_AADHAAR_CIPHERTEXT: Final = "sandbox-encrypted-aadhaar"
SANDBOX_AADHAAR: Final = "123412341234"
