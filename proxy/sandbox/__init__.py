"""Stand-ins of Eka, Eko and object storage that verify what reaches them.

They recompute every signature and judge every token with code of their own, and import nothing
of the rest of this project: a test against them means something.
"""

from proxy.sandbox.dummies import (
    SANDBOX_AADHAAR,
    SANDBOX_AADHAAR_CIPHERTEXT,
    SANDBOX_ACCESS_KEY,
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_DEVELOPER_KEY,
    SANDBOX_INITIATOR_ID,
    SANDBOX_LONG_LIVED_TOKEN,
    SANDBOX_SHARING_KEYS,
    SANDBOX_USER_CODE,
)
from proxy.sandbox.eka import EkaStandIn, ExpiresIn
from proxy.sandbox.eko import EkoStandIn
from proxy.sandbox.eko_answers import Payment
from proxy.sandbox.faults import Fault, parse_fault
from proxy.sandbox.stand_ins import StandIns
from proxy.sandbox.storage import StorageStandIn, Upload
from proxy.sandbox.wire import Arrived

__all__ = [
    "SANDBOX_AADHAAR",
    "SANDBOX_AADHAAR_CIPHERTEXT",
    "SANDBOX_ACCESS_KEY",
    "SANDBOX_CLIENT_ID",
    "SANDBOX_CLIENT_SECRET",
    "SANDBOX_DEVELOPER_KEY",
    "SANDBOX_INITIATOR_ID",
    "SANDBOX_LONG_LIVED_TOKEN",
    "SANDBOX_SHARING_KEYS",
    "SANDBOX_USER_CODE",
    "Arrived",
    "EkaStandIn",
    "EkoStandIn",
    "ExpiresIn",
    "Fault",
    "Payment",
    "StandIns",
    "StorageStandIn",
    "Upload",
    "parse_fault",
]
