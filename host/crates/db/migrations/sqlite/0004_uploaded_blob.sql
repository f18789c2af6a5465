-- Blobs that people uploaded: they may be read, and be referred to, before anything does. A row is no reference; it goes after an hour, as does
-- a blob to which nothing refers by then.
CREATE TABLE uploaded_blob (
    digest TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    uploaded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploaded_blob_uploaded_at ON uploaded_blob (uploaded_at);
