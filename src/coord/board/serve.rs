//! The helper's side: does what it is asked to, one request after the other, until the node closes the line.

use std::io;
use std::time::Duration;

use super::message::{Answer, PART_NAMES, Request, receive, send};
use super::{Board, ClockRead, Created, Done, Listed, Read};

/// Serves requests from `from` until it ends.
pub fn serve(board: &mut impl Board, from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    while let Some(request) = receive(from)? {
        let mut answer = answer(board, request);
        // A long listing goes in parts.
        while let Answer::Listed(Listed::Names(names)) = &mut answer
            && names.len() > PART_NAMES
        {
            let rest = names.split_off(PART_NAMES);
            send(to, &Answer::Part(std::mem::replace(names, rest)))?;
        }
        send(to, &answer)?;
    }
    Ok(())
}

/// Serves requests by a word on why none can be served: nobody reads what a helper writes to stderr.
pub fn refuse(why: &str, from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    while let Some(request) = receive(from)? {
        let why = why.to_owned();
        let answer = match request {
            Request::Create { .. } => Answer::Created(Created::Unknown(why)),
            Request::Read { .. } => Answer::Read(Read::Unreachable(why)),
            Request::List { .. } => Answer::Listed(Listed::Unreachable(why)),
            Request::Prepare { .. } | Request::Beat { .. } | Request::Remove { .. } => {
                Answer::Done(Done::Unreachable(why))
            }
            Request::Clock { .. } => Answer::Clock(ClockRead::Unknown),
            Request::Shut { .. } => Answer::Shut(None),
            Request::ReadSome { .. } => Answer::Some(vec![Read::Unreachable(why)]),
        };
        send(to, &answer)?;
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
        Request::Shut { name } => Answer::Shut(board.shut(&name)),
        Request::ReadSome { names, within_ms } => {
            Answer::Some(board.read_some(&names, Duration::from_millis(within_ms)))
        }
    }
}
