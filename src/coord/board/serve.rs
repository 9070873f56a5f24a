//! The helper's side: does what it is asked to, one request after the other, until the node closes the line.

use std::io;

use super::Board;
use super::message::{Answer, Request, receive, send};

/// Serves requests from `from` until it ends.
pub fn serve(board: &mut impl Board, from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    while let Some(request) = receive(from)? {
        send(to, &answer(board, request))?;
    }
    Ok(())
}

fn answer(board: &mut impl Board, request: Request) -> Answer {
    match request {
        Request::Create { name, text } => Answer::Created(board.create(&name, &text)),
        Request::Read { name } => Answer::Read(board.read(&name)),
        Request::List { name } => Answer::Listed(board.list(&name)),
        Request::Prepare { name } => Answer::Done(board.prepare(&name)),
        Request::Beat { name, text } => Answer::Done(board.beat(&name, &text)),
        Request::Clock { name } => Answer::Clock(board.clock(&name)),
        Request::Remove { name } => Answer::Done(board.remove(&name)),
    }
}
