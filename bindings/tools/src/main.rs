//! `confonnx-bindgen MODULE.wasm FOLDER`: writes `confonnx.js` and `confonnx_bg.wasm`.

use wasm_bindgen_cli_support::Bindgen;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(module), Some(folder)) = (args.next(), args.next()) else {
        eprintln!("usage: confonnx-bindgen MODULE.wasm FOLDER");
        std::process::exit(2);
    };
    let made = Bindgen::new()
        .input_path(module)
        .out_name("confonnx")
        .typescript(false)
        .web(true)
        .and_then(|bindgen| bindgen.generate(folder));
    if let Err(err) = made {
        eprintln!("confonnx-bindgen: {err:#}");
        std::process::exit(1);
    }
}
