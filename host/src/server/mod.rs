//! The servers. `standalone` is the whole in one process; an `api_server` serves the API on the same data directory and database, and asks
//! the scheduler of the `standalone` for whatever changes something. What both need lies here: the data directory (`data_dir`), the parts
//! that the API is built on (`parts`), the listening socket and the API on it (`listen`, `front`).

mod api_server;
mod args;
mod data_dir;
mod descriptors;
mod front;
mod listen;
pub(crate) mod logging;
mod own_thread;
mod parts;
mod signals;
mod space;
mod standalone;

pub(crate) use api_server::{Args as ApiServerArgs, run as run_api_server};
use args::ServerArgs;
pub(crate) use data_dir::read_signing_key;
pub(crate) use standalone::{Args as StandaloneArgs, run as run_standalone};
