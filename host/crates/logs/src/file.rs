//! Where a log lies and how it is read.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use model::RunUuid;
use ports::log::{LogKey, LogLine};

/// The longest line that a reader takes; the writer never writes a longer one.
pub(crate) const MAX_LINE_BYTES: u64 = 2 << 20;

pub(crate) fn run_dir(dir: &Path, run: RunUuid) -> PathBuf {
    dir.join(run.to_string())
}

pub(crate) fn path(dir: &Path, key: LogKey) -> PathBuf {
    let run = run_dir(dir, key.run_uuid);
    if let Some(callback) = key.callback {
        return run.join(format!("callback.{callback}.jsonl"));
    }
    run.join(format!("{}.{}.{}.jsonl", key.task.0, key.map_index.0, key.try_number.0))
}

/// Up to `max_lines` whole lines from a byte position, and the position after them. A position that is not the start of a line,
/// or a line that cannot be read, is passed over.
pub(crate) fn read(path: &Path, from: u64, max_lines: usize) -> io::Result<(Vec<LogLine>, u64)> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let mut lines = Vec::new();
    let mut next = from;
    let mut text = Vec::new();
    while lines.len() < max_lines {
        text.clear();
        let read = io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut text)?;
        // A last line without its end is still being written (or was cut by a crash).
        if read == 0 || (text.last() != Some(&b'\n') && (read as u64) < MAX_LINE_BYTES) {
            break;
        }
        next += read as u64;
        if let Ok(line) = serde_json::from_slice(&text) {
            lines.push(line);
        }
    }
    Ok((lines, next))
}

/// Removes all logs of a run.
pub(crate) async fn delete_run(dir: &Path, run: RunUuid) -> io::Result<()> {
    match tokio::fs::remove_dir_all(run_dir(dir, run)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
