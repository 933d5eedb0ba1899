// One click on an image ► a mask as a PNG file, over HTTP. The standard library is enough.
//
//	go run segment.go http://localhost:8000 photo.jpg 512 380 mask.png
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

const headerLength = "Inference-Header-Content-Length"

type object = map[string]any

type answer struct {
	Error   string `json:"error"`
	Outputs []struct {
		Name string            `json:"name"`
		Data []json.RawMessage `json:"data"`
	} `json:"outputs"`
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: segment URL IMAGE X Y OUTPUT.png")
		os.Exit(2)
	}
	if err := segment(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func segment(url, imagePath, x, y, outputPath string) error {
	image, err := os.ReadFile(imagePath)
	if err != nil {
		return err
	}
	xy, err := parsePoint(x, y)
	if err != nil {
		return err
	}
	header, err := json.Marshal(object{
		"inputs": []object{
			{"name": "image", "datatype": "BYTES", "shape": []int{1}, "parameters": object{"binary_data_size": 4 + len(image)}},
			{"name": "point_coords", "datatype": "FP32", "shape": []int{1, 1, 2}, "data": xy},
			{"name": "point_labels", "datatype": "INT32", "shape": []int{1, 1}, "data": []int{1}},
			{"name": "mask_format", "datatype": "BYTES", "shape": []int{1}, "data": []string{"png"}},
		},
		"outputs": []object{
			{"name": "masks_png", "parameters": object{"binary_data": true}},
			{"name": "iou_predictions"},
			{"name": "cached_image_id"},
		},
	})
	if err != nil {
		return err
	}
	// The image travels as it is, after the JSON header: 4 bytes of length (little-endian), then the file.
	length := make([]byte, 4)
	binary.LittleEndian.PutUint32(length, uint32(len(image)))
	body := bytes.Join([][]byte{header, length, image}, nil)

	request, err := http.NewRequest(http.MethodPost, url+"/v2/models/sam2/infer", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set(headerLength, strconv.Itoa(len(header)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return save(response, content, outputPath)
}

func save(response *http.Response, content []byte, outputPath string) error {
	size := len(content)
	if text := response.Header.Get(headerLength); text != "" {
		parsed, err := strconv.Atoi(text)
		if err != nil || parsed+4 > len(content) {
			return errors.New("the answer is not Triton's")
		}
		size = parsed
	}
	var parsed answer
	if err := json.Unmarshal(content[:size], &parsed); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%d: %s", response.StatusCode, parsed.Error)
	}
	// The only binary output, its 4 bytes of length skipped.
	if err := os.WriteFile(outputPath, content[size+4:], 0o644); err != nil {
		return err
	}
	for _, output := range parsed.Outputs {
		if len(output.Data) > 0 {
			fmt.Printf("%s: %s\n", output.Name, output.Data[0])
		}
	}
	fmt.Println("mask in", outputPath)
	return nil
}

func parsePoint(x, y string) ([]float64, error) {
	px, err := strconv.ParseFloat(x, 64)
	if err != nil {
		return nil, err
	}
	py, err := strconv.ParseFloat(y, 64)
	if err != nil {
		return nil, err
	}
	return []float64{px, py}, nil
}
