//! Everything that is generated from the task contract in `wit/`. The generated code stays private; what the crate needs
//! is re-exported.

mod generated {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "task",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "airtight:task/blobs.reader": crate::interfaces::blobs::Reader,
            "airtight:task/blobs.writer": crate::interfaces::blobs::Writer,
        },
        trappable_error_type: {
            "airtight:task/blobs.error" => crate::interfaces::blobs::BlobsError,
            "airtight:task/checkpoint.error" => crate::interfaces::checkpoint::SaveError,
            "airtight:task/xcom.error" => crate::interfaces::xcom::XcomCallError,
        },
    });
}

pub(crate) use generated::TaskPre;
pub(crate) use generated::airtight::task::{blobs, checkpoint, context, log, progress, types, xcom};
