"""Pure: the schema of the SQLite store as numbered migrations from an empty file."""

from __future__ import annotations

from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema; all steps that a file lacks run in one transaction."""

    version: int
    name: str
    statements: tuple[str, ...]


#: Written into the header of the file ("Jrun"), so that no file of another program is taken for a store.
APPLICATION_ID = 0x4A72756E

#: Created before the first migration: it lists those that a file has had.
MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at REAL NOT NULL
)"""

#: In order of their versions. A released one is never changed: old and new files would differ.
MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "jobs, payloads, events, values",
        (
            # 'epoch', and 'last_n': the highest number given before the last delete.
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
            "INSERT INTO meta (name, value) VALUES ('epoch', 0), ('last_n', 0)",
            # `body` is the whole job (msgpack of runner.jobs.job.Job); the columns beside it are what
            # SQL must see to find, order and fence it.
            """
            CREATE TABLE jobs (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL,
                handler TEXT NOT NULL,
                queue TEXT NOT NULL,
                priority INTEGER NOT NULL,
                state TEXT NOT NULL,
                reason TEXT,
                attempt INTEGER NOT NULL,
                created_at REAL NOT NULL,
                ready_at REAL NOT NULL,
                finished_at REAL,
                body BLOB NOT NULL
            )""",
            "CREATE UNIQUE INDEX jobs_id ON jobs (id)",
            # For lists by state and, as it holds all columns that count_jobs() needs, for the counts.
            "CREATE INDEX jobs_state ON jobs (state, n, queue)",
            "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL",
            # A job inserted in its final state never touches these two.
            "CREATE INDEX jobs_live ON jobs (n) WHERE state IN ('queued', 'running')",
            """
            CREATE INDEX jobs_queued ON jobs (queue, priority DESC, ready_at, n)
                WHERE state = 'queued'""",
            # Payloads are stored separately: an update of a job must not rewrite megabytes of input.
            "CREATE TABLE inputs (n INTEGER PRIMARY KEY, body TEXT NOT NULL)",
            "CREATE TABLE outputs (n INTEGER PRIMARY KEY, body TEXT NOT NULL)",
            "CREATE TABLE tags (tag TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (tag, n)) WITHOUT ROWID",
            "CREATE INDEX tags_n ON tags (n)",
            """
            CREATE TABLE events (
                n INTEGER NOT NULL,
                first_seq INTEGER NOT NULL,
                last_seq INTEGER NOT NULL,
                body BLOB NOT NULL,
                PRIMARY KEY (n, first_seq)
            ) WITHOUT ROWID""",
            "CREATE TABLE vals (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
        ),
    ),
    Migration(
        2,
        "queued jobs are found without their bodies",
        (
            "DROP INDEX jobs_live",
            "DROP INDEX jobs_queued",
            "ALTER TABLE jobs ADD COLUMN vram_bytes INTEGER",
            # The latest first start of a queued job; NULL: any time.
            "ALTER TABLE jobs ADD COLUMN start_by REAL",
            # `BODY_FUNCTIONS` defines these functions. An ended job gets its values if it is queued again.
            """
            UPDATE jobs SET vram_bytes = job_vram_bytes(body), start_by = job_start_by(body)
                WHERE state IN ('queued', 'running')""",
            # It holds every column that a start of the coordinator needs of queued jobs: no row is read.
            """
            CREATE INDEX jobs_queued
                ON jobs (handler, queue, priority, vram_bytes, n, ready_at, start_by, reason)
                WHERE state = 'queued'""",
            "CREATE INDEX jobs_running ON jobs (n) WHERE state = 'running'",
        ),
    ),
    Migration(
        3,
        "queued jobs are told apart by their traits",
        (
            "DROP INDEX jobs_queued",
            "ALTER TABLE jobs ADD COLUMN traits TEXT",
            "UPDATE jobs SET traits = job_traits(body) WHERE state IN ('queued', 'running')",
            """
            CREATE INDEX jobs_queued
                ON jobs (handler, queue, priority, vram_bytes, traits, n, ready_at, start_by, reason)
                WHERE state = 'queued'""",
        ),
    ),
    Migration(
        4,
        "jobs are found by their tenants",
        (
            # A job without a tenant has no entry in this index.
            "ALTER TABLE jobs ADD COLUMN tenant TEXT",
            "CREATE INDEX jobs_tenant ON jobs (tenant, n) WHERE tenant IS NOT NULL",
        ),
    ),
)

#: Tables in the order in which a check with a time limit reads them: small and vital ones first.
CHECKED_TABLES = ("migrations", "meta", "vals", "jobs", "tags", "outputs", "inputs", "events")
