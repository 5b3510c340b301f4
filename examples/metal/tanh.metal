// A tanH neuron in half precision, forward and backward, on texture arrays: a tanh(b x).
#include <metal_stdlib>
using namespace metal;

struct Parameters {
    float a, b;
};

kernel void tanh_forward(texture2d_array<half, access::read> source [[texture(0)]],
                         texture2d_array<half, access::write> result [[texture(1)]],
                         constant Parameters &p [[buffer(0)]],
                         uint3 at [[thread_position_in_grid]]) {
    if (at.x >= result.get_width() || at.y >= result.get_height() || at.z >= result.get_array_size()) return;
    const float4 x = float4(source.read(at.xy, at.z));
    result.write(half4(p.a * tanh(p.b * x)), at.xy, at.z);
}

kernel void tanh_gradient(texture2d_array<half, access::read> source [[texture(0)]],
                          texture2d_array<half, access::read> incoming [[texture(1)]],
                          texture2d_array<half, access::write> result [[texture(2)]],
                          constant float2 &p [[buffer(0)]],
                          uint3 at [[thread_position_in_grid]]) {
    const float4 x = float4(source.read(at.xy, at.z));
    const float4 t = tanh(p.y * x);
    const float4 dy = float4(incoming.read(at.xy, at.z));
    result.write(half4(dy * p.x * p.y * (1 - t * t)), at.xy, at.z);
}
