"""All settings: one row each, read from RUNTALLY_* variables.

The table in docs/settings.md is generated from this class and tested against it, so a description here is
what the operator reads.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingError

_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DAY_US = 86_400_000_000
NEVER_US = 1 << 62


def parse_duration_us(value: Any) -> int:
    """Turn `25ms`, `90s`, `15m`, `12h`, `35d` or `never` into µs; `never` is a duration no clock reaches."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    if text == "never":
        return NEVER_US
    match = re.fullmatch(r"(\d{1,9})(ms|[smhd])", text)
    if match is None:
        raise ValueError("expected a whole number with a unit, such as 25ms, 90s, 15m, 12h or 35d, or the word never")
    return int(match[1]) * _UNITS_US[match[2]]


def parse_size_bytes(value: Any) -> int:
    """Turn `512KiB`, `256MiB`, `2GiB` or a plain number into bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d{1,12})\s*(KiB|MiB|GiB)?", str(value).strip())
    if match is None:
        raise ValueError("expected bytes, or a number with KiB, MiB or GiB")
    return int(match[1]) * {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[match[2]]


def parse_servers(value: Any) -> str:
    """Check a list of Kafka's bootstrap servers, `host:port` separated by commas."""
    text = str(value)
    if not all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s,:/\[\]]+):\d{1,5}", part.strip()) for part in text.split(",")):
        raise ValueError("expected host:port, or several separated by commas")
    return text


Duration = Annotated[int, BeforeValidator(parse_duration_us)]
Size = Annotated[int, BeforeValidator(parse_size_bytes)]


class Settings(BaseSettings):
    """The settings of worker, API and commands. Durations are µs and sizes bytes once parsed."""

    model_config = SettingsConfigDict(env_prefix="RUNTALLY_", extra="ignore", frozen=True, validate_default=True)

    kafka: Annotated[str, BeforeValidator(parse_servers)] = Field(
        "127.0.0.1:9092", description="Kafka bootstrap servers, `host:port` separated by commas."
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey, as a URL.")
    topic_prefix: str = Field(
        "runtally",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Topics are `<prefix>.runs`, `<prefix>.catalog` and `<prefix>.dead-letters`.",
    )
    redis_prefix: str = Field(
        "rt", pattern=r"^[A-Za-z0-9._-]{1,40}$", description="What every key in Redis begins with."
    )
    partitions: int = Field(
        8, ge=1, le=1024, description="Partitions that `topics create` gives the runs topic; one shard each."
    )
    group_id: str = Field("runtally", min_length=1, description="The consumer group of the workers.")
    worker_name: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Names this worker in logs and metrics; unique per worker. Default: the host name.",
    )
    metrics_host: str = Field("127.0.0.1", description="Where the worker serves `/metrics` and `/health`.")
    metrics_port: int = Field(4251, ge=0, le=65535, description="Port of the worker's metrics; 0 = any free port.")
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(4250, ge=0, le=65535, description="Port the API listens on; 0 = any free port.")
    url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Where the API is, for commands that ask it. Default: where `runtally up` says, else "
        "`http://<api_host>:<api_port>`.",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("runtally"),
        description="Where `runtally up` keeps data, logs and `up.json`. Default: the user data folder.",
    )
    max_clock_skew: Duration = Field(
        86_400_000_000,
        gt=0,
        description="An event whose `occurred` or `state_timestamp` is further ahead of its Kafka record than "
        "this is bad.",
    )
    raw_retention: Duration = Field(
        35 * _DAY_US,
        ge=_DAY_US,
        description="How long the records of ended runs are kept, in whole days of the log's time, or `never` to let "
        "none go. Of older runs only sums are left: filters on names, ids and other details do not reach them.",
    )
    rollup_retention: Duration = Field(
        400 * _DAY_US,
        ge=_DAY_US,
        description="How long sums are kept, or `never` to let none go; at least the raw retention. Also the retention "
        "that `topics create` gives the runs topic: how far back Redis can be healed from the log.",
    )
    max_states: int = Field(
        1000,
        ge=10,
        le=4000,
        description="Distinct (state type, state name) pairs a shard counts apart; further names are answered "
        "from raw runs.",
    )
    max_cohorts: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Distinct combinations of flow, deployment, tags, work queue and is-a-subflow a shard counts "
        "apart; further sets of tags share one combination, and a question about tags is answered there from raw runs.",
    )
    worker_memory: Size = Field(
        512 << 20,
        ge=64 << 20,
        description="Memory a worker may use besides the 100 MiB or so that it takes when it has nothing to do: half "
        "for what it remembers of its shards, the rest for events on their way.",
    )
    api_cache: Size = Field(512 << 20, ge=1 << 20, description="Memory the API may use for cells and decoded runs.")
    max_staleness: Duration = Field(
        50_000,
        ge=0,
        le=60_000_000,
        description="So long after it looked what is new, the API answers from what it found: questions that come "
        "close together share one look. `0s`: a look for each.",
    )
    max_body: Size = Field(256 << 10, ge=1 << 10, description="Largest body of a history or count request.")
    max_scan_rows: int = Field(
        20_000_000,
        ge=1,
        description="A request that would scan more runs than this is refused with 422. While it gathers them, a scan "
        "takes some 300 bytes a run, also beyond RUNTALLY_API_CACHE.",
    )
    max_scans: int = Field(2, ge=1, le=64, description="Scans of raw runs at the same time; the rest wait.")
    scan_wait: Duration = Field(
        30_000_000, gt=0, description="How long a request waits for its turn to scan before 503."
    )
    scan_threads: int = Field(1, ge=1, le=256, description="Threads a scan may use (POLARS_MAX_THREADS).")
    dead_letter_limit: int = Field(
        1000,
        ge=1,
        description="So many bad events in a row on one partition, without a good one, stop that shard: a "
        "misconfigured producer must not drain the topic into dead letters.",
    )
    dead_letter_ratio: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A greater share of bad events among the last 10,000 of a partition stops that shard too, if they "
        "are as many as `RUNTALLY_DEAD_LETTER_LIMIT`. 1: never.",
    )
    max_lag: int = Field(
        1_000_000,
        ge=0,
        description="So many events of the log may be missing in answers before `/api/ready` says that the API is not "
        "ready; 0: any number. Answers are given all the same, and say how many.",
    )
    verify_every: Duration = Field(
        3_600_000_000,
        gt=0,
        description="How often a worker holds one day of each of its shards, chosen at random, against the raw runs; "
        "`never` for never.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_json: bool = Field(False, description="Log one JSON object a line, as the option --log-json does.")

    @field_validator("rollup_retention")
    @classmethod
    def _not_before_raw(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("raw_retention", 0):
            raise ValueError("must be at least RUNTALLY_RAW_RETENTION: raw runs cannot outlive their sums")
        return value

    @property
    def worker_cache(self) -> int:
        """The part of a worker's memory for what it remembers of its shards."""
        return self.worker_memory // 2

    @property
    def worker_load(self) -> int:
        """The part of it for events from when they are decoded until they are applied."""
        return self.worker_memory * 3 // 8

    @property
    def worker_fetch(self) -> int:
        """The part of it for what brokers sent, as it came."""
        return self.worker_memory // 8

    @property
    def runs_topic(self) -> str:
        """Topic of task runs and flow runs."""
        return f"{self.topic_prefix}.runs"

    @property
    def catalog_topic(self) -> str:
        """Topic of flows and deployments."""
        return f"{self.topic_prefix}.catalog"

    @property
    def dead_letters_topic(self) -> str:
        """Topic of refused events."""
        return f"{self.topic_prefix}.dead-letters"


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment; `overrides` (by field name) win.

    Raises `SettingError` that names the first wrong variable and says what is expected.
    """
    try:
        return Settings(**(dict(overrides) if overrides else {}))
    except ValidationError as error:
        first = error.errors()[0]
        name = f"RUNTALLY_{str(first['loc'][0]).upper()}"
        raise SettingError(name, f"{first['msg']} (got {first['input']!r})") from None
