//! A terminal that is drawn on in place, and given back as it was.

use std::io::{IsTerminal as _, Read as _, Write as _, stdin, stdout};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// The other screen, without a cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
/// The usual screen, with a cursor.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// End.
    Quit,
    /// Sort by something else.
    Order,
    /// Look now.
    Now,
    /// Any other.
    Other,
}

impl Key {
    fn of(byte: u8) -> Self {
        match byte {
            // End of text and of transmission, as terminals send them where they do not act on them.
            b'q' | b'Q' | 3 | 4 => Self::Quit,
            b's' | b'S' => Self::Order,
            b' ' => Self::Now,
            _ => Self::Other,
        }
    }
}

/// The terminal, while it is ours. Dropping it gives it back.
pub(super) struct Screen {
    /// How the keyboard was; `None` if there is none.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(super) fn open() -> std::io::Result<Self> {
        let before = if stdin().is_terminal() { tcgetattr(stdin()).ok() } else { None };
        if let Some(before) = &before {
            let mut quiet = before.clone();
            // Keys come one by one and are not shown; Ctrl-C stays a signal.
            quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(stdin(), OptionalActions::Now, &quiet)?;
        }
        let screen = Self { before };
        let mut out = stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(screen)
    }

    /// The keys, as they are pressed.
    pub(super) fn keys(&self) -> mpsc::UnboundedReceiver<Key> {
        let (sender, keys) = mpsc::unbounded_channel();
        if self.before.is_some() {
            // Nothing ends a read of a terminal but a key: the thread ends with the program.
            std::thread::spawn(move || {
                let mut byte = [0];
                while stdin().lock().read(&mut byte).is_ok_and(|read| read == 1) {
                    if sender.send(Key::of(byte[0])).is_err() {
                        break;
                    }
                }
            });
        }
        keys
    }

    /// Shows a text from the first line on, and nothing else. What is the same stays, so that nothing flickers.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(super) fn draw(&self, text: &str) -> std::io::Result<()> {
        let lines: Vec<&str> = text.lines().collect();
        let frame = format!("\u{1b}[H{}\u{1b}[K\u{1b}[J", lines.join("\u{1b}[K\n"));
        let mut out = stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done if this fails: the terminal has gone.
        let mut out = stdout().lock();
        let _ = out.write_all(LEAVE.as_bytes());
        let _ = out.flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
