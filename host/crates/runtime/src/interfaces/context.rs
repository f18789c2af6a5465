//! `airtight:task/context`: which try this is.

use model::{MapIndex, Timestamp};

use crate::bindings::context;
use crate::bounded::NoRoom;
use crate::ctx::TaskCtxView;
use crate::limits::{Held, as_u64};

impl TaskCtxView<'_> {
    fn instant(&self, time: Option<Timestamp>) -> wasmtime::Result<Option<String>> {
        self.ctx.gate.pass()?;
        Ok(time.map(|time| time.to_string()))
    }

    /// Charges a text for as long as the host holds it.
    fn text(&self, text: String) -> wasmtime::Result<String> {
        let _held = Held::of(&self.ctx.account, as_u64(text.len())).ok_or(NoRoom("the parameters of the run"))?;
        Ok(text)
    }
}

impl context::Host for TaskCtxView<'_> {
    async fn dag_id(&mut self) -> wasmtime::Result<String> {
        self.ctx.gate.pass()?;
        Ok(self.ctx.request.run.dag_id.to_string())
    }

    async fn run_id(&mut self) -> wasmtime::Result<String> {
        self.ctx.gate.pass()?;
        Ok(self.ctx.request.run.run_id.to_string())
    }

    async fn task_id(&mut self) -> wasmtime::Result<String> {
        self.ctx.gate.pass()?;
        Ok(self.ctx.request.task.task_id.to_string())
    }

    async fn map_index(&mut self) -> wasmtime::Result<Option<u32>> {
        self.ctx.gate.pass()?;
        let MapIndex(index) = self.ctx.request.id.map_index();
        Ok(u32::try_from(index).ok())
    }

    async fn try_number(&mut self) -> wasmtime::Result<u32> {
        self.ctx.gate.pass()?;
        Ok(self.ctx.request.id.try_number.0)
    }

    async fn max_tries(&mut self) -> wasmtime::Result<u32> {
        self.ctx.gate.pass()?;
        Ok(self.ctx.request.task.max_tries)
    }

    async fn logical_date(&mut self) -> wasmtime::Result<Option<String>> {
        self.instant(self.ctx.request.run.logical_date)
    }

    async fn data_interval_start(&mut self) -> wasmtime::Result<Option<String>> {
        self.instant(self.ctx.request.run.data_interval_start)
    }

    async fn data_interval_end(&mut self) -> wasmtime::Result<Option<String>> {
        self.instant(self.ctx.request.run.data_interval_end)
    }

    async fn params(&mut self) -> wasmtime::Result<String> {
        self.ctx.gate.pass()?;
        self.text(self.ctx.request.run.params.to_string())
    }

    async fn conf(&mut self) -> wasmtime::Result<String> {
        self.ctx.gate.pass()?;
        self.text(self.ctx.request.run.conf.to_string())
    }
}
