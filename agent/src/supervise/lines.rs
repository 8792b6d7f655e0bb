use sparkherd_protocol::LINE_BYTES_MAX;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The next line without its newline; `None` at the end of input. A line longer than the protocol allows is skipped to its
/// end and comes back as empty, so that a broken peer costs at most [`LINE_BYTES_MAX`] of memory.
pub async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let (taken, part) = match newline {
            Some(at) => (at + 1, chunk.get(..at)),
            None => (chunk.len(), Some(chunk)),
        };
        if let Some(part) = part.filter(|part| !too_long && line.len() + part.len() < LINE_BYTES_MAX) {
            line.extend_from_slice(part);
        } else {
            too_long = true;
            line.clear();
        }
        reader.consume(taken);
        if newline.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_protocol::LINE_BYTES_MAX;
    use tokio::io::BufReader;

    use super::next_line;

    #[tokio::test]
    async fn reads_lines_and_skips_those_too_long() {
        let mut input = b"one\n".to_vec();
        input.extend(vec![b'x'; LINE_BYTES_MAX * 2]);
        input.extend(b"\n\ntwo\nlast");
        // A small buffer, so that lines come in pieces.
        let mut reader = BufReader::with_capacity(7, &input[..]);
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut reader).await.unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["one", "", "", "two", "last"]);
    }
}
