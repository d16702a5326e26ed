package event

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxPowersOfFive is the largest e for which a decimal of 34 digits times
// 10^-e can be a binary fraction: 5^e must divide the digits, and 5^49 > 10^34.
const maxPowersOfFive = 48

// maxDoubleExponent is the largest power of ten that a double can reach.
const maxDoubleExponent = 308

// appendNumber writes a number by its exact value (see AppendIDKey).
func appendNumber(dst []byte, t bson.Type, v []byte) []byte {
	switch t {
	case bson.TypeInt32:
		return appendInteger(dst, int64(int32(binary.LittleEndian.Uint32(v))))
	case bson.TypeInt64:
		return appendInteger(dst, int64(binary.LittleEndian.Uint64(v)))
	case bson.TypeDouble:
		return appendDouble(dst, math.Float64frombits(binary.LittleEndian.Uint64(v)))
	default:
		low, high := binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[8:])
		return appendDecimal(dst, bson.NewDecimal128(high, low))
	}
}

func appendInteger(dst []byte, n int64) []byte {
	if n >= math.MinInt32 && n <= math.MaxInt32 {
		dst = append(dst, `{"$numberInt":"`...)
	} else {
		dst = append(dst, `{"$numberLong":"`...)
	}
	return append(strconv.AppendInt(dst, n, 10), `"}`...)
}

func appendDouble(dst []byte, f float64) []byte {
	// 2^63 is the first double above every int64; the comparison is false for
	// NaN, and the conversion of what passes it is exact for integers.
	if f >= -1<<63 && f < 1<<63 {
		if n := int64(f); float64(n) == f {
			return appendInteger(dst, n)
		}
	}
	dst = append(dst, `{"$numberDouble":"`...)
	switch {
	case math.IsNaN(f):
		dst = append(dst, "NaN"...)
	case math.IsInf(f, 1):
		dst = append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		dst = append(dst, "-Infinity"...)
	default:
		dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	return append(dst, `"}`...)
}

func appendDecimal(dst []byte, d bson.Decimal128) []byte {
	if d.IsNaN() {
		return appendDouble(dst, math.NaN())
	}
	if sign := d.IsInf(); sign != 0 {
		return appendDouble(dst, math.Inf(sign))
	}
	digits, exp, err := d.BigInt()
	// BigInt errs on NaN and infinities alone, which are handled above. More
	// than 34 digits fit the bits, and IEEE 754 makes such values zeros.
	if err != nil || digits.Sign() == 0 || digits.CmpAbs(decimalLimit()) >= 0 {
		return appendInteger(dst, 0)
	}
	exp = stripZeros(digits, exp)
	if f, ok := exactDouble(digits, exp); ok {
		return appendDouble(dst, f)
	}
	if n, ok := exactInteger(digits, exp); ok {
		return appendInteger(dst, n)
	}
	dst = append(dst, `{"$numberDecimal":"`...)
	dst = append(digits.Append(dst, 10), 'E')
	return append(strconv.AppendInt(dst, int64(exp), 10), `"}`...)
}

// decimalLimit is the smallest integer with more digits than a decimal holds.
func decimalLimit() *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(34), nil) }

// stripZeros divides by ten while that leaves an integer.
func stripZeros(digits *big.Int, exp int) int {
	ten, quotient, remainder := big.NewInt(10), new(big.Int), new(big.Int)
	for {
		quotient.QuoRem(digits, ten, remainder)
		if remainder.Sign() != 0 {
			return exp
		}
		digits.Set(quotient)
		exp++
	}
}

// exactDouble returns digits·10^exp as a double, if one holds it exactly.
func exactDouble(digits *big.Int, exp int) (float64, bool) {
	if exp > maxDoubleExponent || exp < -maxPowersOfFive {
		return 0, false
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil)
	value := new(big.Rat)
	if exp >= 0 {
		value.SetInt(scale.Mul(scale, digits))
	} else {
		value.SetFrac(digits, scale)
	}
	f, exact := value.Float64()
	return f, exact
}

// exactInteger returns digits·10^exp as an int64, if one holds it.
func exactInteger(digits *big.Int, exp int) (int64, bool) {
	const maxInt64Exponent = 18
	if exp < 0 || exp > maxInt64Exponent {
		return 0, false
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(exp)), nil)
	scale.Mul(scale, digits)
	return scale.Int64(), scale.IsInt64()
}
