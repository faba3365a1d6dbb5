//! Answers that come compressed though nobody asked for it.
//!
//! `gzip` and `deflate` are undone piece by piece, so that a reader's own bound of bytes counts what comes out and a
//! small answer cannot become a large one in memory. Anything else is refused by name.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

/// How much is given to the decoder at a time. A byte becomes at most 1032, so no piece is larger than half a MiB.
const PIECE_BYTES: usize = 512;

/// An answer is compressed in a way that is not understood here. None of our requests asks for any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its answer is compressed (`content-encoding: {0}`), which was not asked for; only gzip and deflate are understood"
)]
pub struct UnknownCoding(String);

/// The body of an answer as it was before it was compressed.
pub struct DecodedBody<B = Incoming>(Kind<B>);

enum Kind<B> {
    AsSent(B),
    Compressed(Box<Decoding<B>>),
}

struct Decoding<B> {
    body: B,
    input: Bytes,
    inflater: Inflater,
    ended: bool,
}

enum Inflater {
    /// Nothing has come yet.
    Gzip,
    Deflate,
    IsGzip(MultiGzDecoder<Vec<u8>>),
    IsZlib(ZlibDecoder<Vec<u8>>),
    /// What some servers mean by `deflate` (RFC 9110 §8.4.1.2).
    IsRaw(DeflateDecoder<Vec<u8>>),
}

/// Undoes the compression of an answer, if it has any.
///
/// # Errors
/// [`UnknownCoding`] for one that is not understood.
pub fn decoded<B>(response: Response<B>) -> Result<Response<DecodedBody<B>>, UnknownCoding> {
    let inflater = coding(response.headers())?;
    let (mut head, body) = response.into_parts();
    let kind = match inflater {
        None => Kind::AsSent(body),
        Some(inflater) => {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
            Kind::Compressed(Box::new(Decoding { body, input: Bytes::new(), inflater, ended: false }))
        }
    };
    Ok(Response::from_parts(head, DecodedBody(kind)))
}

fn coding(headers: &HeaderMap) -> Result<Option<Inflater>, UnknownCoding> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in String::from_utf8_lossy(value.as_bytes()).split(',').map(str::trim) {
            let next = match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" if found.is_none() => Inflater::Gzip,
                "deflate" if found.is_none() => Inflater::Deflate,
                _ => {
                    let name = name.chars().filter(|c| !c.is_control()).take(40).collect();
                    return Err(UnknownCoding(name));
                }
            };
            found = Some(next);
        }
    }
    Ok(found)
}

impl Inflater {
    /// What `input` becomes.
    fn feed(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Inflater::Gzip => *self = Inflater::IsGzip(MultiGzDecoder::new(Vec::new())),
            // The first byte of zlib's head names its method, 8 (RFC 1950 §2.2).
            Inflater::Deflate if input.first().is_some_and(|byte| byte & 0x0f == 8) => {
                *self = Inflater::IsZlib(ZlibDecoder::new(Vec::new()));
            }
            Inflater::Deflate => *self = Inflater::IsRaw(DeflateDecoder::new(Vec::new())),
            Inflater::IsGzip(_) | Inflater::IsZlib(_) | Inflater::IsRaw(_) => {}
        }
        match self {
            Inflater::Gzip | Inflater::Deflate => Ok(Vec::new()),
            Inflater::IsGzip(decoder) => {
                decoder.write_all(input)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Inflater::IsZlib(decoder) => {
                write_until_end(decoder, input)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Inflater::IsRaw(decoder) => {
                write_until_end(decoder, input)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }

    /// What is left at the end. An answer without any byte is as good compressed as not.
    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Inflater::Gzip | Inflater::Deflate => Ok(Vec::new()),
            Inflater::IsGzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Inflater::IsZlib(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Inflater::IsRaw(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }
}

/// Writes as much as belongs to the compressed text; what follows its end is ignored.
fn write_until_end(decoder: &mut impl Write, mut input: &[u8]) -> io::Result<()> {
    while !input.is_empty() {
        match decoder.write(input)? {
            0 => break,
            wrote => input = &input[wrote..],
        }
    }
    Ok(())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn broken(error: &io::Error) -> BoxError {
    format!("its compression is broken: {error}").into()
}

impl<B> Decoding<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let output = if !self.input.is_empty() {
                let piece = self.input.split_to(self.input.len().min(PIECE_BYTES));
                self.inflater.feed(&piece)
            } else if self.ended {
                return Poll::Ready(None);
            } else {
                match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        self.input = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => {
                        self.ended = true;
                        self.inflater.finish()
                    }
                }
            };
            match output {
                Ok(output) if output.is_empty() => {}
                Ok(output) => return Poll::Ready(Some(Ok(Frame::data(output.into())))),
                Err(error) => {
                    self.ended = true;
                    self.input = Bytes::new();
                    return Poll::Ready(Some(Err(broken(&error))));
                }
            }
        }
    }
}

impl<B> http_body::Body for DecodedBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::AsSent(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Compressed(decoding) => decoding.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::AsSent(body) => body.is_end_stream(),
            Kind::Compressed(decoding) => decoding.ended && decoding.input.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::AsSent(body) => body.size_hint(),
            Kind::Compressed(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http_body_util::{BodyExt, Full, Limited, StreamBody};

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn answer<B>(coding: &'static str, body: B) -> Response<B> {
        Response::builder().header(CONTENT_ENCODING, coding).body(body).unwrap()
    }

    async fn read(coding: &'static str, body: Vec<u8>) -> Result<Bytes, String> {
        let answer =
            decoded(answer(coding, Full::new(Bytes::from(body)))).map_err(|error| error.to_string())?;
        assert!(answer.headers().get(CONTENT_ENCODING).is_none() || coding == "identity");
        Ok(answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes())
    }

    #[tokio::test]
    async fn gzip_and_deflate_in_all_their_forms_are_undone() {
        let text: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(&text).unwrap();
        let (zlib, raw) = (zlib.finish().unwrap(), raw.finish().unwrap());
        let two = [gzip(&text[..50_000]), gzip(&text[50_000..])].concat();
        for (coding, body) in [
            ("gzip", gzip(&text)),
            ("GZIP, identity", gzip(&text)),
            ("x-gzip", two),
            ("deflate", zlib),
            ("deflate", raw),
            ("identity", text.clone()),
        ] {
            assert_eq!(read(coding, body).await.unwrap(), text, "{coding}");
        }
        assert_eq!(read("gzip", Vec::new()).await.unwrap(), "", "no body is no compressed body");
    }

    #[tokio::test]
    async fn other_codings_are_named_and_broken_ones_are_errors() {
        for (coding, word) in [("br", "`content-encoding: br`"), ("zstd", "zstd"), ("gzip, gzip", "gzip")] {
            let error = read(coding, b"x".to_vec()).await.unwrap_err();
            assert!(error.contains(word) && error.contains("not asked for"), "{error}");
        }
        let whole = gzip(&b"text ".repeat(1000));
        for body in [b"no gzip at all".to_vec(), whole[..whole.len() - 9].to_vec(), whole[..5].to_vec()] {
            let error = read("gzip", body).await.unwrap_err();
            assert!(error.contains("its compression is broken"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_was_flushed_comes_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"data: one\n\n").unwrap();
        encoder.flush().unwrap();
        let first = Bytes::from(encoder.get_ref().clone());
        let body = StreamBody::new(futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok::<_, io::Error>(Frame::data(first))]),
            futures_util::stream::pending(),
        ));
        let mut body = decoded(answer("gzip", body)).unwrap().into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, "data: one\n\n");
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_bound_of_its_reader() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let mut body = decoded(answer("gzip", Full::new(Bytes::from(bomb)))).unwrap().into_body();
        let largest = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        assert!(largest <= 1 << 20, "{largest}");
        let error = Limited::new(body, 1 << 20).collect().await.unwrap_err();
        assert!(error.is::<http_body_util::LengthLimitError>(), "{error}");
    }
}
