"""Every failure that the proxy itself answers, with its code and HTTP status.

A failure is an exception from the moment it is noticed to the moment it is answered. Its
`detail` is for the caller: what happened, why, what to do. It never holds a secret, a token, a
header's value or more of an upstream's address than its origin.

4xx means that nothing was sent upstream (Eko's clients read a 4xx as "was not processed").
"""

from __future__ import annotations

import json
from http import HTTPStatus

_STATUS = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "caller_unknown": HTTPStatus.UNAUTHORIZED,
    "caller_not_allowed": HTTPStatus.FORBIDDEN,
    "origin_not_allowed": HTTPStatus.FORBIDDEN,
    "not_allowed": HTTPStatus.FORBIDDEN,
    "no_route": HTTPStatus.NOT_FOUND,
    "unknown_workspace": HTTPStatus.NOT_FOUND,
    "request_timeout": HTTPStatus.REQUEST_TIMEOUT,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "host_not_allowed": HTTPStatus.MISDIRECTED_REQUEST,
    "signing_input_missing": HTTPStatus.UNPROCESSABLE_ENTITY,
    "header_too_large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "upstream_unreachable": HTTPStatus.BAD_GATEWAY,
    "upstream_protocol_error": HTTPStatus.BAD_GATEWAY,
    "upstream_closed": HTTPStatus.BAD_GATEWAY,
    "credential_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "credential_rejected": HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "upstream_timeout": HTTPStatus.GATEWAY_TIMEOUT,
}
_TITLE = {
    "bad_request": "The request is malformed or ambiguous",
    "caller_unknown": "The caller has to identify itself",
    "caller_not_allowed": "This caller may not use the route",
    "origin_not_allowed": "This web origin may not call the proxy",
    "not_allowed": "The route does not allow this call",
    "no_route": "No route serves this path",
    "unknown_workspace": "No such workspace",
    "request_timeout": "The request did not come to its end in time",
    "body_too_large": "The request body is too large",
    "host_not_allowed": "The Host is not one of the proxy's",
    "signing_input_missing": "A field that has to be signed is missing",
    "header_too_large": "The request head is too large",
    "internal_error": "The proxy failed",
    "upstream_unreachable": "The upstream could not be reached",
    "upstream_protocol_error": "The upstream's answer is not valid HTTP",
    "upstream_closed": "The upstream closed the connection before answering",
    "credential_unavailable": "No valid token is to be had at the moment",
    "credential_rejected": "The vendor refuses the configured credentials",
    "overloaded": "The proxy is at a limit",
    "upstream_timeout": "The upstream did not answer in time",
    "outcome_unknown": "Whether the payment was made is unknown",
}
INQUIRE = (
    "This call moves money and may have been carried out. Inquire by its client_ref_id "
    "before anyone sends it again."
)


class ProxyError(Exception):
    """A failure to be answered by the proxy: `code` (a key of the contract's table) and `detail`.

    `retry_after` is in seconds, None for none; `sent` tells that at least one byte of the request
    may have reached the upstream, so its outcome there is not known. `limit` is the key of the
    limit that was reached, for the metrics.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        sent: bool = False,
        limit: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = int(_STATUS[code])
        self.detail = detail
        self.retry_after = retry_after
        self.sent = sent
        self.limit = limit

    def as_unknown_outcome(self) -> ProxyError:
        """Turn this into `outcome_unknown` (502 or 504): for a financial call, once sent."""
        self.code = "outcome_unknown"
        if self.status not in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
            self.status = int(HTTPStatus.BAD_GATEWAY)
        self.detail = f"{self.detail} {INQUIRE}"
        return self


def bad_request(detail: str) -> ProxyError:
    """Refuse what is malformed or could be read in two ways."""
    return ProxyError("bad_request", detail)


def problem(error: ProxyError, *, route: str, request_id: str) -> bytes:
    """Write the body of a problem answer (RFC 9457, application/problem+json)."""
    return json.dumps(
        {
            "type": f"urn:ekeko:error:{error.code}",
            "title": _TITLE[error.code],
            "status": error.status,
            "detail": error.detail,
            "code": error.code,
            "route": route,
            "request_id": request_id,
        }
    ).encode()
