"""Rows to an HTTP address, each a POST of JSON."""

import os

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.prediction.sinks.base import PATIENCE, Delivery, NotTakenError
from uniad_lightning.prediction.sources.address import without_secrets

TOKEN = "UNIAD_SINK_TOKEN"  # environment variable: sent to every http(s) sink as a bearer token


class Webhook:
    """Posts to an address; any status from 200 to 299 means that the row is taken. Redirects are not followed.

    Raises InputError for an address that is none.
    """

    def __init__(self, address: str):
        import httpx  # here, since the import is slow and only webhooks need it

        self.shown = without_secrets(address)
        try:
            self._url = httpx.URL(address)
        except (httpx.InvalidURL, ValueError):
            raise InputError(f"sink={self.shown}: no valid address; expected such as https://host:8443/path") from None
        if not self._url.host:
            raise InputError(f"sink={self.shown}: names no machine; expected such as https://host:8443/path")
        token = os.environ.get(TOKEN)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._client = httpx.Client(timeout=PATIENCE, headers=headers)
        self._error: type[Exception] = httpx.HTTPError

    def deliver(self, delivery: Delivery) -> None:
        """Post the row, with its id as `Idempotency-Key`."""
        try:
            answer = self._client.post(self._url, content=delivery.body, headers={"Idempotency-Key": delivery.id})
        except self._error as error:
            raise NotTakenError(one_line(error)) from None
        if not answer.is_success:
            raise NotTakenError(f"answers {answer.status_code} {answer.reason_phrase}")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
