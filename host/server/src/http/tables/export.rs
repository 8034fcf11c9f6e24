//! Exports: the whole result of a read, streamed from one committed state.
//!
//! A thread writes the result into a queue of a few pieces, and the connection takes the pieces
//! from it. If the client is slow, the thread waits. If the body ends normally, the result is
//! complete. After an error, the server closes the connection in the middle of the body.

use std::io::{self, Write};
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use lantern_core::{KeyRange, Row, TableId, TableSpec, View};
use lantern_query::{Budget, Cancel, ColumnError, GroupValue, Plan, QueryConfig, QueryError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::answer_form::AnswerForm;
use super::format::ResultWriter;
use super::response_coding::Encoder;
use super::result_shape::ResultShape;

/// The size of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// The number of pieces that wait for the client.
const PIECES_MAX: usize = 4;

/// One export.
pub(super) struct Export {
    pub(super) view: View,
    /// The table with the fields of the result.
    pub(super) table: TableSpec,
    pub(super) plan: Plan,
    pub(super) rows: ExportRows,
    pub(super) form: AnswerForm,
    pub(super) config: QueryConfig,
    /// Limits the number of exports.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The rows of an export.
pub(super) enum ExportRows {
    /// Rows in key order, up to the given number of rows. They are read while they are sent.
    InKeyOrder(TableId, KeyRange, usize),
    Rows(Vec<Row>),
    Groups(Vec<Vec<GroupValue>>),
}

/// Why an export ended before its last row.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Columns(#[from] ColumnError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Export {
    /// Returns the answer. Its body is written while the client reads it.
    pub(super) fn respond(self) -> Response {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let mut response = Response::new(body(pieces));
        self.form.describe(response.headers_mut());
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            span.in_scope(|| {
                if let Err(error) = self.write(sender) {
                    tracing::warn!(%error, "an export ended before its last row");
                }
            });
        });
        response
    }

    fn write(self, sender: mpsc::Sender<Piece>) -> Result<(), ExportError> {
        let Self { view, table, plan, rows, form, config, permit: _permit } = self;
        let mut budget = Budget::of_export(&config, Cancel::default());
        let to = PieceWriter {
            sender,
            piece: Vec::with_capacity(PIECE_BYTES),
            runtime: Handle::current(),
            deadline: budget.deadline(),
            ms_max: config.export_ms_max,
        };
        let to = Encoder::new(form.body_coding(), to)?;
        let shape = match &rows {
            ExportRows::InKeyOrder(..) => ResultShape::ByKey(&table),
            ExportRows::Rows(_) => ResultShape::InOrder(&table, &plan),
            ExportRows::Groups(_) => ResultShape::Groups(&plan),
        };
        let mut writer = ResultWriter::begin(form.format, &view, shape, to)?;
        match rows {
            ExportRows::InKeyOrder(id, range, limit) => {
                let (mut left, mut failed) = (limit, None);
                plan.each_row(&view.rows(id), &range, &mut budget, &mut |row| {
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                    failed = writer.row(&row).err();
                    failed.is_none()
                })?;
                failed.map_or(Ok(()), Err)?;
            }
            ExportRows::Rows(rows) => rows.iter().try_for_each(|row| writer.row(row))?,
            ExportRows::Groups(groups) => groups.iter().try_for_each(|one| writer.group(one))?,
        }
        writer.end(None)?.finish()?.finish()?;
        Ok(())
    }
}

/// A part of a body.
enum Piece {
    Bytes(Bytes),
    /// The body is complete.
    End,
}

/// Returns the body of `pieces`. If the pieces end without [`Piece::End`], the body ends with an
/// error.
fn body(pieces: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(stream::unfold(Some(pieces), |pieces| async {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(pieces))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::other("the export is incomplete")), None)),
        }
    }))
}

/// Sends what is written to it in pieces, and waits while the queue is full.
struct PieceWriter {
    sender: mpsc::Sender<Piece>,
    piece: Vec<u8>,
    runtime: Handle,
    deadline: Instant,
    ms_max: u64,
}

impl PieceWriter {
    fn send(&self, piece: Piece) -> io::Result<()> {
        let sent = self.runtime.block_on(async {
            tokio::time::timeout_at(self.deadline.into(), self.sender.send(piece)).await
        });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it took more than {} ms (`query.export_ms_max`)", self.ms_max),
            )),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.send_piece()?;
        self.send(Piece::End)
    }

    fn send_piece(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.send(Piece::Bytes(full.into()))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.send_piece()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
