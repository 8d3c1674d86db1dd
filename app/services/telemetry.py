"""What this process counts for `GET /metrics`. Several processes answer each for themselves: sum over them.

Labels have few values: route templates, methods, statuses and outcomes; never an id or a text.
"""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("muka_http_requests", "Answers, by route.", ("method", "route", "status"))
LATENCY = Histogram(
    "muka_http_request_duration_seconds",
    "From the request to the beginning of its answer: how long a stream or a download lasts is the client's.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REAPED = Counter("muka_leases_reaped", "Jobs whose worker had fallen silent, as this process noticed.")
DISPATCHED = Counter(
    "muka_jobs_dispatched", "Messages about queued jobs that the caretaker sent to the broker."
)
WEBHOOK_ATTEMPTS = Counter("muka_webhook_attempts", "Attempts to send a webhook.", ("outcome",))
