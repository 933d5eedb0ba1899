// One click on an image ► a mask as a PNG file, over HTTP. Java 17 or newer, no libraries.
//
//   java Segment.java http://localhost:8000 photo.jpg 512 380 mask.png
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;

public final class Segment {
    private static final String HEADER_LENGTH = "Inference-Header-Content-Length";

    // masks_png is the only output asked for, so that no JSON has to be read; ask for iou_predictions and
    // cached_image_id as well where a JSON library is at hand.
    private static final String HEADER =
            """
            {"inputs": [
              {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": %d}},
              {"name": "point_coords", "datatype": "FP32", "shape": [1, 1, 2], "data": [%s, %s]},
              {"name": "point_labels", "datatype": "INT32", "shape": [1, 1], "data": [1]},
              {"name": "mask_format", "datatype": "BYTES", "shape": [1], "data": ["png"]}
             ],
             "outputs": [{"name": "masks_png", "parameters": {"binary_data": true}}]}
            """;

    public static void main(String[] arguments) throws IOException, InterruptedException {
        if (arguments.length != 5) {
            System.err.println("usage: java Segment.java URL IMAGE X Y OUTPUT.png");
            System.exit(2);
        }
        double x = Double.parseDouble(arguments[2]);
        double y = Double.parseDouble(arguments[3]);
        byte[] image = Files.readAllBytes(Path.of(arguments[1]));
        byte[] header = String.format(Locale.ROOT, HEADER, 4 + image.length, x, y)
                .getBytes(StandardCharsets.UTF_8);

        HttpRequest request =
                HttpRequest.newBuilder(URI.create(arguments[0] + "/v2/models/sam2/infer"))
                        .header(HEADER_LENGTH, String.valueOf(header.length))
                        .POST(HttpRequest.BodyPublishers.ofByteArray(body(header, image)))
                        .build();
        HttpResponse<byte[]> response =
                HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofByteArray());
        byte[] content = response.body();
        if (response.statusCode() != 200) {
            System.err.println(response.statusCode() + ": " + new String(content, StandardCharsets.UTF_8));
            System.exit(1);
        }
        int headerLength = Integer.parseInt(response.headers().firstValue(HEADER_LENGTH).orElseThrow());
        // The only binary output, its 4 bytes of length skipped.
        byte[] png = Arrays.copyOfRange(content, headerLength + 4, content.length);
        Files.write(Path.of(arguments[4]), png);
        System.out.println("mask in " + arguments[4]);
    }

    /** The image travels as it is, after the JSON header: 4 bytes of length (little-endian), then the file. */
    private static byte[] body(byte[] header, byte[] image) throws IOException {
        ByteArrayOutputStream body = new ByteArrayOutputStream(header.length + 4 + image.length);
        body.write(header);
        body.write(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(image.length).array());
        body.write(image);
        return body.toByteArray();
    }

    private Segment() {}
}
