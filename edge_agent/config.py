"""The configuration: one YAML file, checked as a whole, with a unit, bounds and a reason for every field.

``load`` reports *all* problems in one go, each with its line and a "did you mean". Secrets are references
(``{credential: NAME}``, ``{file: PATH}`` or ``{env: NAME}``), never values.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from edge_agent.errors import ConfigurationError
from edge_agent.evidence import claim_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
SYSTEM_STATE_DIR = Path("/var/lib/edge-agent")
SYSTEM_SOCKET = Path("/run/edge-agent/api.sock")

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the file: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SecretRef(Section):
    """Where a secret is kept: exactly one of the three."""

    credential: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="name of a systemd credential")
    file: Path | None = Field(None, description="a file that only the daemon's user can read")
    env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of an environment variable")

    @model_validator(mode="before")
    @classmethod
    def _never_inline(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "a secret is never written in the file: use {credential: NAME}, {file: PATH} or {env: NAME}"
            )
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(v is not None for v in (self.credential, self.file, self.env)) != 1:
            raise ValueError("give exactly one of credential, file and env")
        return self

    @model_serializer(mode="plain")
    def _the_one_that_is_given(self) -> dict[str, str]:
        kind, _, where = str(self).partition(":")
        return {kind: where}

    def path(self) -> Path | None:
        """The file that holds the secret, where it is one."""
        if self.credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            return Path(directory) / self.credential if directory else None
        return self.file

    def read(self) -> bytes:
        """The secret, without a trailing newline.

        Raises ConfigurationError when it is not there, is empty, or a file is readable by others.
        """
        if self.env is not None:
            text = os.environ.get(self.env, "")
            if not text:
                raise ConfigurationError(
                    f"cannot read the secret from the environment variable {self.env}: it is not set",
                    code="secret_missing",
                    hint=f"export {self.env}, or use {{credential: NAME}} or {{file: PATH}}",
                )
            return text.encode()
        path = self.path()
        if path is None:
            raise ConfigurationError(
                f"cannot read the credential {self.credential}: systemd passed no credentials",
                code="secret_missing",
                hint="run under the systemd unit (LoadCredential=), or use {file: PATH} or {env: NAME}",
            )
        return _read_secret_file(path, private=self.credential is None)

    def __str__(self) -> str:
        kind = "credential" if self.credential else "file" if self.file else "env"
        return f"{kind}:{self.credential or self.file or self.env}"


def _read_secret_file(path: Path, *, private: bool) -> bytes:
    try:
        mode = path.stat().st_mode
        secret = _without_newline(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read the secret file {path}: {exc.strerror}",
            code="secret_missing",
            hint="create it with mode 0600, owned by the daemon's user",
        ) from exc
    if private and mode & 0o077:
        raise ConfigurationError(
            f"cannot use the secret file {path}: others may read it (mode {mode & 0o777:04o})",
            code="secret_exposed",
            hint=f"chmod 600 {path}",
        )
    if not secret:
        raise ConfigurationError(f"cannot use the secret file {path}: it is empty", code="secret_missing")
    return secret


def _without_newline(data: bytes) -> bytes:
    """An editor's newline at the end is no part of a secret; a raw key of 32 bytes may end in any byte."""
    return data if len(data) == 32 else data.rstrip(b"\r\n")


GROUP_OF_THE_INSTALLATION = "edge-agent"
"""Where it exists its members are POS callers; a developer's machine does without."""
UNMAPPED_ID = 65534
"""What the kernel shows for every user that a container's map does not name: nobody in particular."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,62}\$?$")]


def _is_loopback_address(value: str) -> str:
    """``127.0.0.1:PORT`` or ``[::1]:PORT``: an address, because a name may lead anywhere."""
    try:
        parts = urlsplit(f"//{value}")
        host, port = ip_address(parts.hostname or ""), parts.port
    except ValueError:
        host, port = None, None
    if host is None or not port or parts.netloc != value or "@" in value:
        raise ValueError("must be an address and a port, such as 127.0.0.1:8470 or '[::1]:8470'")
    if not host.is_loopback:
        raise ValueError("must be a loopback address: the API is not for the network")
    return value


def _is_name_or_number(value: object) -> object:
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number and not isinstance(value, str):
        raise ValueError("must be a name or a number")
    if value == UNMAPPED_ID or value in {"nobody", "nogroup"}:
        raise ValueError("is what every user of a container looks like: name somebody")
    if (isinstance(value, int) and not 0 <= value < 2**32 - 1) or value == "":
        raise ValueError("must be a name or a number from 0 to 4294967294")
    return value


Member = Annotated[str | int, BeforeValidator(_is_name_or_number)]


class MembersSection(Section):
    """Who has a role, by name or number."""

    users: list[Member] = Field(default_factory=list)
    groups: list[Member] = Field(default_factory=list)


class RolesSection(Section):
    """Who may do what, beside root and the daemon's own user, who may everything."""

    pos: MembersSection = Field(default_factory=MembersSection, description="verify; members of socket_group may too")
    enrol: MembersSection = Field(default_factory=MembersSection, description="upload source pictures")
    admin: MembersSection = Field(default_factory=MembersSection, description="everything")


class ApiSection(Section):
    """The terminal API."""

    socket: Path = Field(SYSTEM_SOCKET, description="Unix socket of the terminal API")
    socket_group: Name | None = Field(
        GROUP_OF_THE_INSTALLATION,
        description="its members may connect, with role pos; null: nobody but root and the daemon's user",
    )
    tcp: Annotated[str, AfterValidator(_is_loopback_address)] | None = Field(
        None, description="loopback address and port, for a POS that cannot use a Unix socket; needs token"
    )
    metrics: Annotated[str, AfterValidator(_is_loopback_address)] | None = Field(
        None, description="loopback address and port that serve /metrics and nothing else, to every local process"
    )
    token: SecretRef | None = Field(None, description="bearer token of role pos over tcp: 32 characters or more")
    enrol_token: SecretRef | None = Field(None, description="bearer token of role enrol")
    admin_token: SecretRef | None = Field(None, description="bearer token of role admin; never give it to a POS")
    roles: RolesSection = Field(default_factory=RolesSection)

    @model_validator(mode="after")
    def _tcp_has_a_token(self) -> Self:
        if self.tcp is not None and self.token is None:
            raise ValueError("tcp needs token: every process of this machine can connect there")
        if self.metrics is not None and self.metrics == self.tcp:
            raise ValueError("metrics needs a port of its own: tcp asks for a token")
        return self


class CameraSection(Section):
    """Where frames come from."""

    source: Literal["auto", "picamera", "v4l2", "gstreamer", "replay", "none"] = Field(
        "auto", description="auto takes a Raspberry Pi's or Jetson's CSI camera, else the first V4L2 capture device"
    )
    device: str | None = Field(
        None, description="v4l2: for example /dev/video0; picamera: the camera's number; default: the first one"
    )
    pipeline: str | None = Field(
        None, max_length=4096, description="gstreamer: the source's part, in the syntax of gst-launch-1.0"
    )
    path: Path | None = Field(None, description="replay: a picture, a folder of pictures or a clip")
    size: tuple[Annotated[int, Field(ge=64, le=7680)], Annotated[int, Field(ge=64, le=4320)]] = Field(
        (1280, 720), description="width, height in px to ask the camera for"
    )
    fps: float = Field(15.0, gt=0, le=120, description="frames per second to ask for")
    rotate: Literal[0, 90, 180, 270] = Field(0, description="degrees clockwise, for cameras mounted on their side")
    between_sessions: Literal["closed", "watch"] = Field(
        "closed",
        description="watch keeps the camera open, so that a session begins at once and a dead camera is known before; "
        "nothing is detected, stored or sent, but people are in view without a request",
    )
    watch_fps: float = Field(5.0, ge=1, le=30, description="pictures per second that are looked at while it is watched")
    stale_after_s: float = Field(
        1.0, gt=0, le=3600, description="a frame older than this is never judged: it may show somebody else"
    )

    @model_validator(mode="after")
    def _replay_has_a_path(self) -> Self:
        if self.source == "replay" and self.path is None:
            raise ValueError("source: replay needs path: a picture, a folder or a clip")
        return self

    @model_validator(mode="after")
    def _gstreamer_has_a_pipeline(self) -> Self:
        if self.source == "gstreamer" and not (self.pipeline or "").strip():
            raise ValueError("source: gstreamer needs pipeline, such as: v4l2src device=/dev/video0 ! jpegdec")
        if self.pipeline is not None and self.source != "gstreamer":
            raise ValueError(f"pipeline is for source: gstreamer, not {self.source}")
        return self

    @model_validator(mode="after")
    def _a_csi_camera_has_a_number(self) -> Self:
        if self.source == "picamera" and self.device is not None and not self.device.isdecimal():
            raise ValueError(f"device of source: picamera is a number such as '0', not {self.device!r}")
        return self


class ModelsSection(Section):
    """Which model pack, from where, on what."""

    pack: str = Field("open", pattern=r"^[A-Za-z0-9._/-]{1,255}$", description="pack name or path of a pack file")
    dir: Path = Field(SYSTEM_STATE_DIR / "models", description="where the model files are")
    providers: Literal["auto", "cpu", "cuda", "tensorrt"] | list[str] = Field(
        "auto", description="auto = TensorRT or CUDA where present, else CPU"
    )
    threads: int = Field(
        0, ge=0, le=64, description="intra-op threads per model; 0 = the measured default (one; see docs/performance)"
    )


class GateSection(Section):
    """The limits of the gate: one key per limit; the defaults suit a kiosk at 40-100 cm."""

    min_face_score: Ratio = Field(0.5, description="detector score of the face")
    max_second_face_ratio: Ratio = Field(
        0.3, description="area of the second face / area of the largest; from here on it is a second customer"
    )
    min_inter_eye_px: float = Field(60.0, ge=10, le=2000, description="px; ISO/IEC 29794-5 inter-eye distance")
    max_face_height_ratio: float = Field(0.8, gt=0, le=2, description="face height / frame height")
    min_margin_ied: float = Field(
        0.5, ge=-2, le=5, description="space beside the face on each side, in inter-eye distances"
    )
    min_visible_margin_ied: float = Field(
        0.0, ge=-2, le=5, description="below this margin the face counts as cut off by the picture's edge"
    )
    max_yaw_deg: float = Field(20.0, gt=0, le=90, description="degrees")
    max_pitch_deg: float = Field(20.0, gt=0, le=90, description="degrees")
    max_roll_deg: float = Field(15.0, gt=0, le=90, description="degrees")
    min_sharpness: float = Field(0.4, ge=0, le=1, description="0-1, of the aligned face; see docs/gate.md")
    max_motion_ied_per_s: float = Field(
        1.5, gt=0, le=100, description="movement between frames, inter-eye distances per second"
    )
    min_luminance: Ratio = Field(0.2, description="mean luminance of the face")
    max_luminance: Ratio = Field(0.8, description="mean luminance of the face")
    max_dark_share: Ratio = Field(
        0.08,
        description="share of face pixels with luma <= 25; wider than for bright pixels: dark skin, beards, glasses",
    )
    max_bright_share: Ratio = Field(0.05, description="share of face pixels with luma >= 247")
    min_light_uniformity: Ratio = Field(0.3, description="left/right illumination uniformity")
    min_dynamic_range_bits: float = Field(5.0, ge=0, le=8, description="entropy of the face's luma histogram, bits")
    max_liveness_out_of_bounds: Ratio = Field(
        0.30, description="share of a liveness model's crop that may lie outside the frame"
    )
    min_track_similarity: float = Field(
        0.65, ge=-1, le=1, description="correlation of consecutive aligned faces; below: somebody else stepped in"
    )
    max_track_gap_s: float = Field(
        1.0, gt=0, le=3600, description="s between two frames of one track; a longer gap starts a new one"
    )
    max_track_jump_ied: float = Field(
        1.5, gt=0, le=20, description="jump of the face between two frames, inter-eye distances; above: a new track"
    )

    @model_validator(mode="after")
    def _luminance_in_order(self) -> Self:
        if self.min_luminance >= self.max_luminance:
            raise ValueError("min_luminance must be below max_luminance")
        return self


def _off_is_a_word(value: object) -> object:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


class LivenessSection(Section):
    """What the customer is asked to do, beside what the models say of the picture. See docs/challenge.md."""

    challenge: Annotated[Literal["off", "head_turn"], BeforeValidator(_off_is_a_word)] = Field(
        "off", description="head_turn asks for two small turns of the head; measure it on your own camera first"
    )
    turn_threshold: float = Field(
        0.12, ge=0.10, le=0.15, description="how far the nose moves against the face's plane; 0.12 is about 12 degrees"
    )
    steps: Literal[2, 3] = Field(2, description="turns to ask for, each to the other side than the one before")
    step_timeout_s: float = Field(5.0, ge=2, le=30, description="s to do what is asked, from the acknowledgement on")
    acknowledge_timeout_s: float = Field(
        3.0, ge=0.5, le=30, description="s for the POS to say that a prompt is shown; then the challenge is unavailable"
    )
    total_timeout_s: float = Field(
        20.0, ge=5, le=120, description="s for all attempts; the search goes on for as long as they do"
    )
    attempts: int = Field(2, ge=1, le=5, description="after so many the verification is rejected")
    unavailable: Literal["reject", "accept"] = Field(
        "reject",
        description="nobody acknowledged a prompt, or frames come too seldom: reject, or accept on the models alone",
    )
    cannot_turn: Literal["blink", "reject"] = Field(
        "blink", description="who cannot turn is asked to blink, which proves less; reject: another means of payment"
    )
    mirrored: bool = Field(
        False, description="the camera's pictures are mirror images: its left is the customer's right"
    )

    @model_validator(mode="after")
    def _one_attempt_fits(self) -> Self:
        if self.total_timeout_s < self.step_timeout_s:
            raise ValueError("total_timeout_s must not be shorter than step_timeout_s")
        return self


class SessionSection(Section):
    """The clocks of one verification."""

    search_timeout_s: float = Field(20.0, ge=1, le=600, description="s; bounds framing, ends in rejected")
    verdict_timeout_s: float = Field(15.0, ge=1, le=600, description="s from captured; ends in pending")
    capture_window_s: float = Field(1.0, ge=0, le=30, description="s; the best shot is chosen among these frames")
    liveness_frames: int = Field(
        5, ge=1, le=50, description="k: at least so many assessed frames vote (median, up to 15)"
    )
    hint_hold_s: float = Field(0.5, ge=0, le=10, description="s a hint must be stable before it is shown")
    result_valid_s: float = Field(120.0, ge=1, le=3600, description="s; approved turns false after this")
    max_failures: int = Field(5, ge=0, le=1000, description="spoof or not_verified outcomes in 180 s; 0 = no lock-out")


class EnrolmentSection(Section):
    """Limits of the source picture, where they are stricter than the gate's; every later match is measured by it."""

    min_inter_eye_px: float = Field(90.0, ge=10, le=2000, description="px; the least of ISO/IEC 19794-5 for a portrait")
    max_second_face_ratio: Ratio = Field(0.1, description="nobody else in the picture, not even in the background")
    max_yaw_deg: float = Field(12.0, gt=0, le=90, description="degrees; a turned source makes every later match worse")
    max_pitch_deg: float = Field(12.0, gt=0, le=90, description="degrees; as max_yaw_deg")
    max_roll_deg: float = Field(10.0, gt=0, le=90, description="degrees; as max_yaw_deg")
    min_sharpness: float = Field(0.5, ge=0, le=1, description="0-1; above all blurred portraits that were measured")
    min_luminance: Ratio = Field(0.3, description="mean luminance of the face; noise of a dark picture stays for years")
    max_luminance: Ratio = Field(0.8, description="mean luminance of the face")
    min_light_uniformity: Ratio = Field(0.4, description="left/right illumination uniformity; no half face in shadow")
    search_timeout_s: float = Field(30.0, ge=1, le=120, description="s of filming, where the picture is the camera's")

    def stricter(self, gate: GateSection) -> GateSection:
        """``gate`` with these limits, each where it is the stricter of the two: a source is never judged laxer."""
        limits = {
            name: pick(getattr(gate, name), getattr(self, name))
            for name in GateSection.model_fields.keys() & EnrolmentSection.model_fields.keys()
            for pick in ((max,) if name.startswith("min_") else (min,))
        }
        return gate.model_copy(update=limits)


class CaptureSection(Section):
    """The picture that is uploaded."""

    jpeg_quality: int = Field(80, ge=50, le=100, description="chosen by measurement: docs/performance.md")
    max_side_px: int = Field(640, ge=160, le=4096, description="px; a larger crop is scaled down")
    margin: float = Field(0.5, ge=0, le=3, description="space around the face box, in box widths/heights")


class TimeoutsSection(Section):
    """Total time per step, connection included (seconds)."""

    connect_s: float = Field(5.0, gt=0, le=120)
    request_s: float = Field(30.0, gt=0, le=600, description="token, generate-url, PUT")
    match_s: float = Field(300.0, gt=0, le=900, description="CypherFace may take up to 5 minutes")


def _is_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an https:// URL")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("plain http:// is accepted for loopback hosts only: use https://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold credentials, a query or a fragment")
    return url if url.endswith("/") else url + "/"


def _is_upload_host(host: str) -> str:
    name = host.strip().lower()
    labels = name.split(":")[0].removeprefix("*.")
    if not labels or "*" in labels or "/" in name or any(c.isspace() for c in name):
        raise ValueError("must be a host name (optionally with :port), or *.domain")
    if name.startswith("*.") and labels.count(".") < 1:
        raise ValueError("a wildcard over a whole top-level domain is anybody's server")
    if name.startswith("*.") and labels.endswith(("amazonaws.com", "googleapis.com", "windows.net")):
        raise ValueError("a wildcard over a cloud's storage would be anybody's bucket: name the bucket's host")
    return name


class CypherFaceSection(Section):
    """The service; everything but the timing and compatibility switches is required."""

    base_url: Annotated[str, AfterValidator(_is_http_url)]
    merchant_id: str = Field(pattern=r"^[0-9a-fA-F]{24}$", description="24 hex characters")
    api_key: SecretRef
    auth_scheme: Literal["raw", "bearer"] = "raw"
    match_path: str = Field("/api/face/match/", pattern=r"^/[A-Za-z0-9/_-]*/$")
    upload_hosts: list[Annotated[str, AfterValidator(_is_upload_host)]] = Field(
        min_length=1, description="hosts that may receive pictures; no default on purpose"
    )
    min_similarity: float | None = Field(None, ge=0, le=100, description="0-100; when set, similarity must be reported")
    accept_bare_200: bool = Field(False, description="count a 200 without a verdict in its body as a match")
    upload_quarantine_s: float = Field(60.0, ge=0, le=3600)
    match_settle_s: float = Field(0.0, ge=0, le=120)
    ca_bundle: Path | None = None
    timeouts: TimeoutsSection = Field(default_factory=TimeoutsSection)


class OutboxSection(Section):
    """The durable queue."""

    key: SecretRef = Field(default_factory=lambda: SecretRef(credential="edge-agent-key"))
    previous_key: SecretRef | None = Field(None, description="the device key before `key`, until a rotation is done")
    max_items: int = Field(5000, ge=1, le=10_000_000)
    max_bytes: int = Field(1 << 30, ge=1 << 20, description="bytes of queued captures")
    max_age_s: float = Field(259_200.0, gt=0, description="s of running time")
    reserve_bytes: int = Field(
        32 << 20, ge=0, description="bytes set aside on the disk so that the queue always drains; 8 MB at least"
    )


class RetentionSection(Section):
    """How long each purpose keeps what it holds; see docs/privacy.md. Days of running time (docs/durability.md)."""

    capture_days: float | None = Field(
        None,
        gt=0,
        le=3650,
        description="days a picture waits for its verdict; null = outbox.max_age_s; the shorter counts",
    )
    template_days: float = Field(30.0, gt=0, le=3650, description="days a face template serves offline")
    verdict_days: float = Field(
        30.0, ge=1, le=3650, description="days from its end that a verification names its user, its details and verdict"
    )
    audit_days: float = Field(
        365.0, ge=1, le=36500, description="days of the audit log; it names users by keyed hashes"
    )

    @model_validator(mode="after")
    def _the_log_outlives_what_it_tells_of(self) -> Self:
        if self.audit_days < max(self.verdict_days, self.template_days, self.capture_days or 0.0):
            raise ValueError("audit_days must not be shorter than the others: the log tells of their destruction")
        return self


class FaceThresholdSection(Section):
    """From which cosine two captures show one person, and how that was measured: an answer is given on it alone."""

    cosine: float = Field(gt=0, lt=1, description="similarity of two embeddings from which they are one person's")
    embedder_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="the embedder's file that was measured; another one has no threshold",
    )
    impostor_pairs: int | None = Field(None, ge=1, description="pairs of different people that were compared")
    fmr_upper_95: float | None = Field(None, gt=0, lt=1, description="upper 95 % bound of the false match rate")
    not_evidence: bool = Field(
        False, description="nothing was measured: for demonstrations and tests, with a sandbox on loopback only"
    )

    @model_validator(mode="after")
    def _measured_or_not(self) -> Self:
        figures = (self.embedder_sha256, self.impostor_pairs, self.fmr_upper_95)
        if self.not_evidence:
            if any(figure is not None for figure in figures):
                raise ValueError("not_evidence: true goes without figures: either it was measured or it was not")
            return self
        if self.embedder_sha256 is None or self.impostor_pairs is None or self.fmr_upper_95 is None:
            raise ValueError("give embedder_sha256, impostor_pairs and fmr_upper_95 of the measurement")
        problem = claim_problem(self.impostor_pairs, self.fmr_upper_95)
        if problem is not None:
            raise ValueError(problem)
        return self


class OfflineSection(Section):
    """What happens when CypherFace cannot be reached, and what is remembered of what it said. See docs/offline.md."""

    policy: Literal["deny", "queue", "provisional"] = "queue"
    match_ttl_s: float = Field(
        2_592_000.0,
        gt=0,
        description="s; older verdicts are not shown any more; retention.verdict_days ends them anyway",
    )
    max_matches: int = Field(20, ge=1, le=100, description="verdicts shown per user")
    face_threshold: FaceThresholdSection | None = Field(
        None, description="null = the one in the model pack's manifest; the shipped packs have none"
    )
    max_amounts: dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], Annotated[Decimal, Field(gt=0)]] = Field(
        default_factory=dict, description="the largest amount of a provisional answer, by ISO 4217 currency"
    )
    without_amount: bool = Field(False, description="requests that name no amount may be answered provisionally too")
    max_answers: int = Field(20, ge=1, le=100_000, description="provisional answers until CypherFace confirmed them")
    max_answers_per_user_day: int = Field(3, ge=1, le=1000, description="provisional answers per user in 24 h")
    max_offline_s: float = Field(28_800.0, gt=0, le=2_592_000, description="s of an outage with provisional answers")
    max_templates: int = Field(5, ge=1, le=20, description="face templates kept per user")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.policy == "provisional" and not self.max_amounts and not self.without_amount:
            raise ValueError("policy provisional needs max_amounts, or without_amount: true: else it answers nothing")
        return self


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto = fields of the journal under systemd, else text"
    )


class Config(Section):
    """The whole file."""

    terminal_id: str = Field("pos-0001", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    state_dir: Path = Field(SYSTEM_STATE_DIR, description="the only place that is written")
    api: ApiSection = Field(default_factory=ApiSection)
    camera: CameraSection = Field(default_factory=CameraSection)
    models: ModelsSection = Field(default_factory=ModelsSection)
    gate: GateSection = Field(default_factory=GateSection)
    liveness: LivenessSection = Field(default_factory=LivenessSection)
    session: SessionSection = Field(default_factory=SessionSection)
    capture: CaptureSection = Field(default_factory=CaptureSection)
    enrolment: EnrolmentSection = Field(default_factory=EnrolmentSection)
    cypherface: CypherFaceSection
    outbox: OutboxSection = Field(default_factory=OutboxSection)
    offline: OfflineSection = Field(default_factory=OfflineSection)
    retention: RetentionSection = Field(default_factory=RetentionSection)
    log: LogSection = Field(default_factory=LogSection)

    @field_validator("offline")
    @classmethod
    def _a_guess_is_for_the_sandbox(cls, value: OfflineSection, info: ValidationInfo) -> OfflineSection:
        service = info.data.get("cypherface")
        guessed = value.face_threshold is not None and value.face_threshold.not_evidence
        if guessed and service is not None and urlsplit(service.base_url).hostname not in LOOPBACK_HOSTS:
            raise ValueError("face_threshold.not_evidence is accepted only with a sandbox on loopback: measure one")
        return value

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @model_validator(mode="before")
    @classmethod
    def _models_live_in_the_state_directory(cls, value: object) -> object:
        """A state directory elsewhere takes its models along, unless models.dir is given."""
        if not isinstance(value, dict) or "state_dir" not in value:
            return value
        models = value.get("models") or {}
        if isinstance(models, dict) and "dir" not in models:
            return {**value, "models": {**models, "dir": Path(str(value["state_dir"])) / "models"}}
        return value


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the file."""

    line: int
    column: int
    key: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        key = f"{self.key}: " if self.key else ""
        return f"line {self.line}, column {self.column}: {key}{self.message}{hint}"


class InvalidConfiguration(ConfigurationError):
    """The file has problems; ``problems`` lists them all."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        listing = "\n".join(f"  {p}" for p in problems)
        super().__init__(
            f"cannot use the configuration {source}: {len(problems)} problem"
            f"{'s' if len(problems) > 1 else ''}\n{listing}",
            hint="mend the lines above; docs/configuration.md lists every key",
        )
        self.problems = problems


def load(path: Path) -> Config:
    """Read and check the file at ``path``.

    Raises InvalidConfiguration with every problem, or ConfigurationError when the file cannot be read.
    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The file as text. Raises ConfigurationError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read the configuration {path}: {exc.strerror}", hint="give another file with --config"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"cannot read the configuration {path}: it is not UTF-8 text") from exc


def parse(text: str, source: str = "<text>") -> Config:
    """Check configuration text. Raises InvalidConfiguration with every problem."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise InvalidConfiguration(source, [_yaml_problem(exc)]) from exc
    problems = [] if root is None else list(_duplicates(root))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(Problem(1, 1, "", "must be a mapping of sections, such as 'cypherface:'"))
        raise InvalidConfiguration(source, problems)
    try:
        config = Config.model_validate(value)
    except ValidationError as exc:
        problems += [_problem(error, root) for error in exc.errors(include_url=False)]
        config = None
    if problems or config is None:
        raise InvalidConfiguration(source, sorted(problems, key=lambda p: (p.line, p.column)))
    return config


def lines_of(path: Path) -> dict[str, int]:
    """The line (from 1) of every key that the file gives, by its dotted name; for a file that ``load`` took."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return dict(_lines(root, ""))


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield f"{prefix}{key.value}", key.start_mark.line + 1
        yield from _lines(value, f"{prefix}{key.value}.")


def _yaml_problem(exc: yaml.YAMLError) -> Problem:
    mark = getattr(exc, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = getattr(exc, "problem", None) or str(exc).splitlines()[0]
    return Problem(line, column, "", f"is not valid YAML: {what}")


def _duplicates(node: yaml.Node, path: str = "") -> Iterator[Problem]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        where = f"{path}.{name}" if path else name
        if name in seen:
            yield Problem(
                key.start_mark.line + 1, key.start_mark.column + 1, where, f"given twice (first in line {seen[name]})"
            )
        seen.setdefault(name, key.start_mark.line + 1)
        yield from _duplicates(value, where)


def _problem(error: ErrorDetails, root: yaml.Node | None) -> Problem:
    location = [part for part in error["loc"] if not str(part).startswith(("literal[", "list[", "function-"))]
    mark = _mark(root, location, key=error["type"] in {"extra_forbidden", "missing"})
    name = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return Problem(*mark, name, "unknown key", _did_you_mean(location))
    if error["type"] == "missing":
        return Problem(*mark, name, "is required")
    message = error["msg"].removeprefix("Value error, ")
    return Problem(*mark, name, message[:1].lower() + message[1:])


def _did_you_mean(location: list[Any]) -> str | None:
    model: type[BaseModel] | None = Config
    for part in location[:-1]:
        field = model.model_fields.get(str(part)) if model else None
        annotation = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    names = list(model.model_fields) if model else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(names)}" if names else None


def _mark(root: yaml.Node | None, location: list[Any], *, key: bool) -> tuple[int, int]:
    """Line and column (from 1) of the deepest node of ``location`` that is in the file."""
    node, mark = root, root.start_mark if root else None
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        key_node, node = found
        mark = key_node.start_mark if key or not isinstance(node, yaml.ScalarNode) else node.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _child(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
