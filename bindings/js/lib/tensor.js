import { ConfonnxError } from "./error.js";

// Float16Array is young: where it is missing, halves are Uint16Array with their bits, as bfloat16 always is.
const Half = globalThis.Float16Array;

const ARRAYS = {
  bool: Uint8Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float16: Half ?? Uint16Array,
  bfloat16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
};

const NAMES = new Map([
  [Uint8Array, "uint8"],
  [Uint8ClampedArray, "uint8"],
  [Uint16Array, "uint16"],
  [Uint32Array, "uint32"],
  [BigUint64Array, "uint64"],
  [Int8Array, "int8"],
  [Int16Array, "int16"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
  [Float32Array, "float32"],
  [Float64Array, "float64"],
]);
if (Half) NAMES.set(Half, "float16");

const wrong = (message) => new ConfonnxError({ kind: "argument", message });

/** Numbers or strings, and how they are arranged. */
export class Tensor {
  /**
   * @param data a typed array, or an array of strings (or bytes) or of booleans
   * @param shape lengths, outermost first; one dimension if none is given
   * @param dtype NumPy's name of the type, where the array does not say it: `float16` or `bfloat16` for the bits in a
   *   Uint16Array, `bool` for a Uint8Array
   */
  constructor(data, shape, dtype) {
    this.data = data;
    this.dtype = dtype ?? typeOf(data);
    this.shape = Array.from(shape ?? [data.length]);
    if (this.dtype !== "string" && !(this.dtype in ARRAYS)) {
      throw wrong(`expected a type of ${Object.keys(ARRAYS).join(", ")} or string, found ${this.dtype}`);
    }
    const elements = this.shape.reduce((product, length) => product * length, 1);
    if (elements !== data.length) {
      throw wrong(`expected ${elements} elements for shape [${this.shape}], found ${data.length}`);
    }
  }

  /** The bytes, as they travel: little-endian; strings after their length in four bytes. */
  static bytes(tensor) {
    const { data, dtype } = tensor;
    if (dtype === "string") return packed(data);
    if (ArrayBuffer.isView(data)) {
      const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
      if (data.BYTES_PER_ELEMENT !== size) {
        throw wrong(`expected ${size} bytes an element for ${dtype}, found ${data.BYTES_PER_ELEMENT}`);
      }
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    }
    const array = ARRAYS[dtype].from(data);
    return new Uint8Array(array.buffer);
  }

  /** The tensor of these bytes, which it takes. */
  static from(dtype, shape, bytes) {
    if (dtype === "string") return new Tensor(unpacked(bytes), shape, dtype);
    const { buffer, byteOffset, byteLength } = bytes;
    const Kind = ARRAYS[dtype];
    const whole = byteOffset % Kind.BYTES_PER_ELEMENT === 0 ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
    const start = whole === buffer ? byteOffset : 0;
    return new Tensor(new Kind(whole, start, byteLength / Kind.BYTES_PER_ELEMENT), shape, dtype);
  }
}

function typeOf(data) {
  const known = ArrayBuffer.isView(data) ? NAMES.get(data.constructor) : undefined;
  if (known) return known;
  if (Array.isArray(data) && data.every((item) => typeof item === "boolean")) return data.length ? "bool" : "string";
  if (Array.isArray(data) && data.every((item) => typeof item === "string" || item instanceof Uint8Array)) return "string";
  throw wrong("expected a typed array, or an array of strings or booleans; for plain numbers say which type, as in Float32Array.from(…)");
}

function packed(items) {
  const encoder = new TextEncoder();
  const parts = Array.from(items, (item) => (typeof item === "string" ? encoder.encode(item) : item));
  const out = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(out.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    out.set(part, at + 4);
    at += 4 + part.length;
  }
  return out;
}

/** Strings; bytes that are no UTF-8 stay bytes. */
function unpacked(bytes) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const items = [];
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at, true);
    const item = bytes.subarray(at + 4, at + 4 + length);
    try {
      items.push(decoder.decode(item));
    } catch {
      items.push(item.slice());
    }
    at += 4 + length;
  }
  return items;
}
