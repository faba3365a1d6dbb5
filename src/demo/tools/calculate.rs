//! A calculator: recursive descent over `+ - * / % ^`, parentheses and decimal numbers, bounded in depth.

/// Parentheses and signs nested deeper are refused, so that no input can exhaust the stack.
const MAX_DEPTH: u32 = 64;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the expression ends too early")]
    End,
    #[error("`{0}` was not expected; numbers, + - * / % ^ and parentheses are understood")]
    Unexpected(char),
    #[error("`{0}` is not a number")]
    Number(String),
    #[error("the expression is nested too deeply")]
    Depth,
    #[error("dividing by zero has no value")]
    DivisionByZero,
    #[error("the value is too large")]
    Overflow,
}

/// The value of `expression`.
///
/// # Errors
/// See [`Error`].
pub fn evaluate(expression: &str) -> Result<f64, Error> {
    let mut parser = Parser { rest: expression.trim_start(), depth: 0 };
    let value = parser.sum()?;
    match parser.rest.chars().next() {
        None | Some('=') => Ok(value),
        Some(other) => Err(Error::Unexpected(other)),
    }
}

/// A value as people write it: whole numbers without a point, at most 10 digits after it.
pub fn show(value: f64) -> String {
    let text = format!("{value:.10}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<f64, Error> {
        let mut value = self.product()?;
        loop {
            if self.take(&['+']) {
                value = finite(value + self.product()?)?;
            } else if self.take(&['-', '−']) {
                value = finite(value - self.product()?)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, Error> {
        let mut value = self.signed()?;
        loop {
            if self.take(&['*', '×', '·']) {
                value = finite(value * self.signed()?)?;
            } else if self.take(&['/', '÷']) {
                value = finite(value / nonzero(self.signed()?)?)?;
            } else if self.take(&['%']) {
                value = finite(value % nonzero(self.signed()?)?)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<f64, Error> {
        if self.take(&['-', '−']) {
            return self.nested(|parser| parser.signed().map(|value| -value));
        }
        if self.take(&['+']) {
            return self.nested(Self::signed);
        }
        let base = self.atom()?;
        // The exponent may carry a sign and binds to the right: 2^3^2 is 2^9.
        if self.take(&['^']) {
            let exponent = self.nested(Self::signed)?;
            return finite(base.powf(exponent));
        }
        Ok(base)
    }

    fn atom(&mut self) -> Result<f64, Error> {
        if self.take(&['(']) {
            let value = self.nested(Self::sum)?;
            return match self.rest.chars().next() {
                _ if self.take(&[')']) => Ok(value),
                Some(other) => Err(Error::Unexpected(other)),
                None => Err(Error::End),
            };
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if digits.is_empty() {
            return Err(rest.chars().next().map_or(Error::End, Error::Unexpected));
        }
        self.rest = rest.trim_start();
        digits.parse().map_err(|_| Error::Number(digits.to_owned())).and_then(finite)
    }

    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Result<f64, Error>) -> Result<f64, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::Depth);
        }
        self.depth += 1;
        let value = parse(self);
        self.depth -= 1;
        value
    }

    fn take(&mut self, symbols: &[char]) -> bool {
        match self.rest.strip_prefix(symbols) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }
}

fn finite(value: f64) -> Result<f64, Error> {
    if value.is_finite() { Ok(value) } else { Err(Error::Overflow) }
}

fn nonzero(value: f64) -> Result<f64, Error> {
    if value == 0.0 { Err(Error::DivisionByZero) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arithmetic_is_what_school_says() {
        for (expression, value) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("2^3^2", "512"),
            ("-2^2", "-4"),
            ("2^-1", "0.5"),
            ("10 / 4", "2.5"),
            ("7 % 4", "3"),
            ("0.1 + 0.2", "0.3"),
            ("12 × 7 =", "84"),
            ("--3", "3"),
            ("100", "100"),
        ] {
            assert_eq!(evaluate(expression).map(show), Ok(value.to_owned()), "{expression}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        assert_eq!(evaluate(""), Err(Error::End));
        assert_eq!(evaluate("(1"), Err(Error::End));
        assert_eq!(evaluate("1 / 0"), Err(Error::DivisionByZero));
        assert_eq!(evaluate("2 apples"), Err(Error::Unexpected('a')));
        assert_eq!(evaluate("1.2.3"), Err(Error::Number("1.2.3".to_owned())));
        assert_eq!(evaluate("9^9^9^9"), Err(Error::Overflow));
        assert_eq!(evaluate(&"(".repeat(10_000)), Err(Error::Depth));
        assert_eq!(evaluate(&"-".repeat(10_000)), Err(Error::Depth));
        assert_eq!(evaluate(&format!("2{}", "^2".repeat(10_000))), Err(Error::Depth));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[0-9+*/^%(). -]{0,60}") {
            if let Ok(value) = evaluate(&text) {
                prop_assert!(value.is_finite());
            }
        }
    }
}
