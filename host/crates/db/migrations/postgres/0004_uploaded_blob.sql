-- Blobs that people uploaded: they may be read, and be referred to, before anything does. A row is no reference; it goes after an hour, as does
-- a blob to which nothing refers by then.
CREATE TABLE uploaded_blob (
    digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    uploaded_at BIGINT NOT NULL
);
CREATE INDEX uploaded_blob_uploaded_at ON uploaded_blob (uploaded_at);
